// Runs a model that somebody registered, and registers one (docs/runners.md):
//   node examples/runs.mjs run URL OWNER/NAME INPUT [API_KEY]           (API_KEY or GRID_API_KEY)
//   node examples/runs.mjs register URL DOCUMENT FOLDER [API_KEY]
// INPUT is JSON. `run` prints one line for each update, over broken connections too; Ctrl-C cancels the prediction, and
// what the worker says to that is the end. DOCUMENT is a JSON file; FOLDER gets what the model's agent needs.
// Exit code 0: succeeded, registered; 1: refused, failed, canceled or broken; 2: wrong usage.

import { randomUUID } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { io } from "socket.io-client";

const CALL_TIMEOUT = 15_000;
const WAIT_MAX = 15_000;
const PATIENCE = 300_000; // ms that a node may be away
const PASSING = [408, 429, 500, 502, 503, 504];

class GridError extends Error {
  constructor(body) {
    const fields = Object.entries(body.fields ?? {}).map(([name, problems]) => `; ${name}: ${problems}`);
    super(`${body.code ?? "error"}: ${body.error ?? "the node refused"}${fields.join("")}`);
    this.passes = PASSING.includes(body.status);
    this.pause = (body.retry_after ?? 0) * 1000;
  }
}

const away = () => new GridError({ code: "unreachable", error: "the node does not answer" });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function open(url, namespace, key) {
  const address = `${url.replace(/\/$/, "")}${namespace}`;
  return io(address, { auth: { key }, transports: ["websocket"], timeout: CALL_TIMEOUT, reconnectionDelayMax: 5_000 });
}

/** Resolves once the socket is connected; a wrong key is refused for good, a missing node is waited for. */
function connected(socket) {
  if (socket.connected) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => settle(reject, away()), PATIENCE);
    const resolved = () => settle(resolve);
    const refused = ({ data }) => {
      if (!data?.status) return; // nobody there: the client goes on trying
      const refusal = new GridError(data);
      if (!refusal.passes) settle(reject, refusal);
      else setTimeout(() => socket.connect(), refusal.pause || 1_000); // after a refusal it does not try by itself
    };
    const settle = (finish, value) => {
      clearTimeout(timer);
      socket.off("connect", resolved).off("connect_error", refused);
      finish(value);
    };
    socket.once("connect", resolved).on("connect_error", refused);
    if (!socket.active) socket.connect();
  });
}

/** The ack of an event that may be repeated: again after a broken connection or a passing refusal. */
async function call(socket, event, data) {
  for (let wait = 500, until = Date.now() + PATIENCE; ; wait = Math.min(wait * 2, WAIT_MAX)) {
    await connected(socket);
    const ack = await socket.timeout(CALL_TIMEOUT).emitWithAck(event, data).catch(() => null); // none: it broke
    if (ack && ack.success !== false) return ack;
    const refusal = ack ? new GridError(ack) : away();
    if ((ack && !refusal.passes) || Date.now() > until) throw refusal;
    await sleep(Math.max(Math.random() * wait, refusal.pause));
  }
}

/** Every update once and in order, over reconnects too: each subscription begins behind the last offset. */
async function follow(socket, id, told) {
  let offset = null;
  const end = withResolvers();
  const subscribe = () => {
    // a callback, for it comes before the updates that follow the answer
    socket.timeout(CALL_TIMEOUT).emit("predictions.subscribe", { id, after: offset }, (error, answer) => {
      if (error) socket.connected && socket.disconnect().connect(); // a mute node: by another connection
      else if (answer.success === false) end.reject(new GridError(answer));
      else if (!answer.recovered) console.log("AGAIN"); // what it has is told from the beginning
    });
  };
  const heard = (update) => {
    if (update.id !== id) return;
    offset = update.offset;
    told(update);
    if (update.event === "done") end.resolve(JSON.parse(update.data).reason ?? null);
  };
  const dropped = (reason) => reason === "io server disconnect" && setTimeout(() => socket.connect(), 1_000);
  const refused = ({ data }) => {
    const refusal = data?.status && new GridError(data);
    if (refusal && !refusal.passes) end.reject(refusal);
    else if (refusal) setTimeout(() => socket.connect(), refusal.pause || 1_000);
  };
  socket.on("prediction.event", heard).on("connect", subscribe).on("disconnect", dropped).on("connect_error", refused);
  if (socket.connected) subscribe();
  return end.promise;
}

/** A promise and the two functions that settle it. */
function withResolvers() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

function print({ event, data, offset }) {
  if (event === "done") return;
  console.log(`${event.toUpperCase()} ${offset} ${event === "error" ? JSON.parse(data).detail : JSON.stringify(data)}`);
}

async function run(url, model, text, key) {
  const socket = open(url, "/v1", key);
  try {
    const asked = { model, input: JSON.parse(text), idempotency_key: randomUUID() };
    const { id, status } = await call(socket, "predictions.create", asked);
    console.log(`CREATED ${id} ${status}`);
    const cancel = () => call(socket, "predictions.cancel", { id }).catch((error) => console.error(error.message));
    process.once("SIGINT", cancel);
    const reason = await follow(socket, id, print);
    console.log(`DONE ${reason ?? "succeeded"}`);
    return reason === null ? 0 : 1;
  } finally {
    socket.disconnect();
  }
}

async function register(url, file, folder, key) {
  const socket = open(url, "/pc", key);
  try {
    const document = JSON.parse(await readFile(file, "utf8"));
    const made = await call(socket, "predict_signature.create", { ...document, idempotency_key: randomUUID() });
    const save = (name, data, mode) => writeFile(join(folder, name), `${JSON.stringify(data, null, 2)}\n`, { mode });
    await save("tunnel_credential.json", made.credential, 0o600); // whoever has it can stand in for the worker
    await save("tunnel_config.json", made.config, 0o644);
    const { models } = await call(socket, "models.list", {});
    const mine = models.find(({ model_id: id }) => id === made.id);
    console.log(`REGISTERED ${made.id} ${mine.owner}/${mine.model_name}`);
    return 0;
  } finally {
    socket.disconnect();
  }
}

const [command, url, first, second, key = process.env.GRID_API_KEY] = process.argv.slice(2);
const work = { run, register }[command];
if (!work || !url || !first || !second || !key) {
  console.error("usage: runs.mjs run URL OWNER/NAME INPUT [API_KEY]\n       runs.mjs register URL DOCUMENT FOLDER [API_KEY]");
  process.exit(2);
}
process.exitCode = await work(url, first, second, key).catch((error) => {
  console.error(`runs: ${error.message}`);
  return 1;
});
