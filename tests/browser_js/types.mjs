// Makes the types of ssekit.js from its comments: node types.mjs [--write]. Without --write it only
// fails if ssekit.d.ts is another.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const TYPES = fileURLToPath(new URL("../../ssekit/browser/ssekit.d.ts", import.meta.url));
// What the comments mark as internal and no public type names.
const INTERNAL = ["Condition", "Address", "Settings", "Ask", "OthersMessage", "LeaderMessage"];

const folder = mkdtempSync(join(tmpdir(), "types-"));
try {
  const options = ["--noEmit", "false", "--declaration", "--emitDeclarationOnly"];
  const tsc = join(HERE, "node_modules", ".bin", "tsc");
  execFileSync(tsc, ["-p", HERE, ...options, "--outDir", folder], { stdio: "inherit" });
  let text = readFileSync(join(folder, "ssekit.d.ts"), "utf8");
  for (const name of INTERNAL) {
    const before = text;
    text = text.replace(new RegExp(`^export type ${name} = [^]*?;\n(?! |\\})`, "m"), "");
    if (text === before) throw new Error(`no type ${name}`);
  }
  if (process.argv.includes("--write")) writeFileSync(TYPES, text);
  else if (readFileSync(TYPES, "utf8") !== text) {
    console.error("ssekit.d.ts is not what the comments say: node types.mjs --write");
    process.exitCode = 1;
  }
} finally {
  rmSync(folder, { recursive: true });
}
