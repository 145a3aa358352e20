// A random story of tabs and a server, and what must be true at its end: each tab has had, once and
// in order, every event since it opened. `node story.mjs SEED [LAST SEED [LOSS]]` tells or counts them.

import { Server, World } from "./simulation.mjs";

// How often each of these happens.
const OFTEN = {
  open: 5, close: 2, crash: 2, block: 3, freeze: 2, bfcache: 2, restart: 1, cut: 2, swallow: 1, slow: 1,
};
const CHOICES = Object.entries(OFTEN).flatMap(([name, times]) => Array(times).fill(name));
const MOST_TABS = 8;

class Story {
  lines = [];
  #number = 0;
  #version = 0;
  #passing = 0;

  constructor(seed, loss) {
    this.world = new World(seed);
    this.world.loss = loss;
    this.server = new Server(this.world);
    this.quiet = this.world.random() < 0.3;
    this.publishing = true;
    this.#flow();
    this.#beat();
    this.open();
  }

  say(...words) {
    this.lines.push(`${((this.world.now - 1.7e12) / 1000).toFixed(3)} ${words.join(" ")}`);
  }

  #flow() {
    const { world, server } = this;
    if (!this.publishing) return;
    const choice = world.random();
    if (choice < 0.6) server.publish(`e${++this.#number}`);
    else if (choice < 0.75) server.set(world.pick(["a", "b", "c"]), ++this.#version);
    else if (choice < 0.85) server.elsewhere();
    else server.passing(`p${++this.#passing}`);
    world.at(this.quiet ? world.between(10, 4000) : world.between(1, 100), () => this.#flow());
  }

  #beat() {
    this.server.comment();
    this.world.at(5000, () => this.#beat());
  }

  #some() {
    return this.world.pick(this.world.alive.filter((tab) => !tab.blocked));
  }

  #later(low, high, action) {
    this.world.at(this.world.between(low, high), action);
  }

  open() {
    if (this.world.alive.length >= MOST_TABS) return;
    const tab = this.world.open({ server: this.server, silence: 12000 });
    tab.name = this.world.tabs.length;
    this.say("open", tab.name);
  }

  close(how = "close") {
    const tab = this.#some();
    if (!tab || this.world.alive.length < 2) return;
    this.say(how, tab.name);
    tab[how]();
  }

  crash() {
    this.close("crash");
  }

  block() {
    const tab = this.#some();
    if (!tab) return;
    this.say("block", tab.name);
    tab.blocked = true;
    this.#later(100, 6000, () => {
      this.say("unblock", tab.name);
      tab.unblock();
    });
  }

  freeze(how = "freeze") {
    const tab = this.#some();
    if (!tab) return;
    this.say(how, tab.name);
    tab.hide(how);
    this.#later(50, 8000, () => {
      if (tab.dead) return;
      this.say("back", tab.name);
      tab.show(how);
    });
  }

  bfcache() {
    this.freeze("bfcache");
  }

  restart() {
    if (!this.server.up) return;
    this.say("server down");
    this.server.stop();
    this.#later(50, 4000, () => {
      this.say("server up");
      this.server.start();
    });
  }

  #connection(how, action) {
    const connection = this.world.pick([...this.server.connections]);
    if (!connection) return;
    this.say(how, connection.tab.name);
    action(connection);
  }

  cut() {
    const error = this.world.random() < 0.5 ? new TypeError("cut") : undefined;
    this.#connection("cut", (connection) => connection.end(error));
  }

  swallow() {
    this.#connection("swallow", (connection) => (connection.swallow = true));
  }

  slow() {
    this.#connection("slow", (connection) => (connection.slow = 800));
  }

  async run(steps) {
    for (let step = 0; step < steps; step++) {
      this[this.world.pick(CHOICES)]();
      await this.world.run(this.world.between(5, 2000));
    }
    // Everything comes back, all is quiet, and then there are two more events.
    await this.world.run(30000);
    this.publishing = false;
    await this.world.run(25000);
    for (const _ of [1, 2]) {
      this.server.publish(`e${++this.#number}`);
      await this.world.run(3000);
    }
  }

  /** What is wrong at the end. */
  problems() {
    const { alive, tabs, errors } = this.world;
    const roles = alive.map((tab) => tab.stream.status.role).sort();
    const wanted = [...Array(alive.length - 1).fill("follower"), "leader"];
    const problems = [...errors, ...tabs.flatMap((tab) => this.#problemsOf(tab))];
    if (roles.join() !== wanted.join()) problems.push(`roles: ${roles}`);
    if (this.server.connections.size !== 1) {
      problems.push(`${this.server.connections.size} connections for ${alive.length} tabs`);
    }
    return problems;
  }

  #problemsOf(tab) {
    const passing = tab.events.filter(([type]) => type === "passing").map(([, data]) => data);
    const twice = new Set(passing).size < passing.length;
    return [...(twice ? [`tab ${tab.name}: a passing event twice`] : []), ...this.#lostBy(tab)];
  }

  /** Events with an id that a tab has lost, repeated or reordered. */
  lost() {
    return this.world.tabs.flatMap((tab) => this.#lostBy(tab));
  }

  #lostBy(tab) {
    const found = (problem) => [`tab ${tab.name}: ${problem}`];
    const events = tab.events.filter(([type]) => type !== "passing");
    const opened = events.findIndex(([type]) => type === "stream-open");
    if (opened < 0) return tab.dead ? [] : found("never opened");
    const { log } = this.server;
    const after = (at) => log.findIndex(({ visible }, index) => index > at && visible);
    let at = log.findIndex(({ id }) => id === events[opened][2]);
    const versions = new Map();
    for (const [index, [type, data, id]] of events.entries()) {
      if (index > opened) {
        at = after(at);
        if (log[at]?.id !== id) return found(`${type} ${data} ${id}, not ${log[at]?.id}`);
      }
      if (type !== "value") continue;
      const [key, version] = data.split("=");
      if (versions.get(key) >= Number(version)) return found(`${data} after a newer one`);
      versions.set(key, Number(version));
    }
    return tab.dead || after(at) < 0 ? [] : found(`behind, ${JSON.stringify(tab.stream.status)}`);
  }
}

export async function tell(seed, { steps = 40, loss = 0 } = {}) {
  const story = new Story(seed, loss);
  await story.run(steps);
  return story;
}

if (process.argv[1] === import.meta.filename || process.argv[1]?.endsWith("/story.mjs")) {
  const [first, last = first, loss = 0] = process.argv.slice(2).map(Number);
  let wrong = 0;
  for (let seed = first; seed <= last; seed++) {
    const story = await tell(seed, { loss });
    const problems = story.problems();
    if (first === last) console.log(story.lines.join("\n"));
    if (problems.length) console.log(seed, problems);
    wrong += problems.length > 0;
  }
  console.log(`${last - first + 1} stories, ${wrong} with a problem`);
}
