// Keeps what a frame says last.

addEventListener("message", ({ data }) => (window.said = data));
