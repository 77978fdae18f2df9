// Follows a node's games and sends it predictions, as a miner of a private grid (an API key with the scope `worker`):
//   node examples/predictions.mjs URL PREDICTIONS FOLDER [API_KEY]      (API_KEY or GRID_API_KEY)
// PREDICTIONS is a JSON file with a list of predictions, see docs/predictions.md: the first is sent alone, the others
// in batches. Receipts come into FOLDER, where `grid-client miner verify` checks their signatures. Prints one line for
// each thing that happens, until it is interrupted. Exit code 0: interrupted; 1: refused or broken; 2: wrong usage.

import { createHash, randomUUID } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { inflateSync } from "node:zlib";
import { io } from "socket.io-client";

const [url, file, folder, apiKey = process.env.GRID_API_KEY] = process.argv.slice(2);
const CALL_TIMEOUT = 10_000;
const BACKOFF_BASE = 1_000;
const BACKOFF_MAX = 300_000;
const INFLATED_MAX = 16 * 1024 * 1024; // bytes
const ACK_EVERY = 16; // updates
const ACK_WITHIN = 500; // ms; the node grants a second
const LOST = 4000;
const PASSING = new Set([429, 503, LOST, 4402, 4408, 4430, 4503]); // status of an answer, or code of a `closing`

class GridError extends Error {
  constructor(body) {
    super(`${body.reason ?? body.code ?? "error"}: ${body.error ?? "the node refused"}`);
    this.passes = PASSING.has(body.status ?? body.code);
    this.pause = (body.retry_after ?? 0) * 1000;
  }
}

const lost = (error) => new GridError({ code: LOST, reason: "lost", error });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** RFC 8785: as JSON.stringify writes numbers and strings, names in the order of sort(). */
function canonical(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical)}]`;
  const member = (name) => `${JSON.stringify(name)}:${canonical(value[name])}`;
  return `{${Object.keys(value).sort().map(member)}}`;
}

// --- games: a log of updates, numbered without gaps

/** The update itself; one that was sent compressed is no larger than it says. */
function unpack(message) {
  if (message.encoding === undefined) return message;
  const { encoding, raw_size: size, data } = message;
  if (encoding !== "zlib" || !(size <= INFLATED_MAX)) throw new Error(`${size} bytes of ${encoding}`);
  const raw = inflateSync(data, { maxOutputLength: size });
  if (raw.length !== size) throw new Error(`${raw.length} bytes instead of ${size}`);
  return JSON.parse(raw);
}

class Games {
  all = new Map();
  position = null; // {epoch, seq} of the last update applied
  #parts = [];

  /** Takes one update: "snapshot" or "delta" when it changed the games, else "part", "old" or "gap". */
  apply(update) {
    if (update.kind === "snapshot") return this.#applyPart(update);
    if (this.position === null) return "old"; // the snapshot that is under way has it
    if (update.epoch !== this.position.epoch || update.seq > this.position.seq + 1) return "gap";
    if (update.seq <= this.position.seq) return "old";
    for (const [id, changes] of Object.entries(update.updated_games)) {
      this.all.set(id, { ...this.all.get(id), ...changes });
    }
    this.position = { epoch: update.epoch, seq: update.seq };
    return "delta";
  }

  #applyPart({ epoch, seq, part, parts, updated_games: games }) {
    if (part === 1) this.#parts = [];
    this.#parts.push(...Object.entries(games));
    if (part < parts) return "part";
    this.all = new Map(this.#parts);
    this.position = { epoch, seq };
    return "snapshot";
  }

  isBehind({ epoch, seq }) {
    return this.position !== null && (epoch !== this.position.epoch || seq > this.position.seq);
  }
}

// --- one connection

class Connection {
  #unacked = 0;
  #timers = [];
  #resuming = false;

  constructor(miner) {
    this.miner = miner;
    const options = { transports: ["websocket"], reconnection: false, forceNew: true, timeout: CALL_TIMEOUT };
    this.socket = io(`${url.replace(/\/$/, "")}/predictions`, options);
    /** Resolves with the error that says why it is over. */
    this.ended = new Promise((resolve) => {
      this.socket.on("connect_error", ({ data, message }) => resolve(data ? new GridError(data) : lost(message)));
      this.socket.on("closing", (body) => resolve(new GridError(body)));
      this.socket.on("disconnect", (reason) => resolve(lost(reason)));
      this.end = resolve;
    });
    this.socket.on("challenge", (challenge) => this.#authenticate(challenge));
    this.socket.on("heartbeat", (theirs, answer) => this.#beat(theirs, answer));
    this.socket.on("game_update", (message) => this.#update(message));
  }

  close() {
    this.#timers.forEach(clearInterval);
    this.socket.disconnect();
  }

  /** The ack of an event; a refusal too, for some are receipts. Throws that the connection is lost when none comes. */
  async call(event, data) {
    try {
      return await this.socket.timeout(CALL_TIMEOUT).emitWithAck(event, data);
    } catch (error) {
      throw lost(error.message);
    }
  }

  /** The fields of every message. */
  base(type) {
    const timestamp = new Date().toISOString();
    return { message_id: randomUUID(), sender_hotkey: this.address, timestamp, message_type: type };
  }

  #authenticate({ sender_hotkey: node }) {
    const { position } = this.miner.games; // without one a snapshot follows
    const introduction = { api_key: apiKey, compression: ["zlib"], ...(position && { position }) };
    // a callback, for it comes before the updates that follow the answer; what waits for a promise comes after some
    this.socket.timeout(CALL_TIMEOUT).emit("authenticate", introduction, (error, answer) => {
      if (error) this.end(lost(error.message));
      else if (!answer.success) this.end(new GridError(answer));
      else this.#guard(this.#open(node, answer));
    });
  }

  async #open(node, welcome) {
    this.node = node;
    this.address = welcome.receiver_hotkey;
    this.maxBatch = welcome.max_batch;
    console.log(`CONNECTED ${this.address} to ${node}, last_seq ${welcome.last_seq}, recovered ${welcome.recovered}`);
    const beat = () => this.#guard(this.call("heartbeat", this.base("heartbeat")));
    this.#timers.push(setInterval(beat, welcome.heartbeat_interval * 1000));
    this.#timers.push(setInterval(() => this.#acknowledge(), ACK_WITHIN));
    await this.miner.opened(this);
  }

  /** What fails ends the connection. */
  #guard(work) {
    work.catch(this.end);
  }

  #beat(theirs, answer) {
    answer(this.base("heartbeat"));
    if (this.miner.games.isBehind(theirs)) this.#resume();
  }

  #update(message) {
    let update, done;
    try {
      update = unpack(message);
      done = this.miner.games.apply(update);
    } catch (error) {
      this.end(new GridError({ code: "bad_update", error: error.message }));
      return;
    }
    if (done === "gap") this.#resume();
    if (done === "snapshot") console.log(`SNAPSHOT ${this.miner.games.all.size} games, seq ${update.seq}`);
    if (done === "delta") console.log(`UPDATE ${update.seq} ${JSON.stringify(update.updated_games)}`);
    if (++this.#unacked >= ACK_EVERY) this.#acknowledge();
  }

  /** Says how far we are; the node sends only so many updates ahead of that. */
  #acknowledge() {
    if (this.#unacked && this.miner.games.position) this.socket.emit("update_ack", this.miner.games.position);
    this.#unacked = 0;
  }

  /** Asks for what is missing: the updates, or a snapshot where the node has them no more. */
  #resume() {
    if (this.#resuming) return;
    this.#resuming = true;
    this.#guard(this.call("resume", this.miner.games.position).finally(() => (this.#resuming = false)));
  }
}

// --- predictions: sent under the same id, connection after connection, until there is a receipt

class Miner {
  games = new Games();
  failures = 0;
  #receipts = new Map();
  #waiting; // in the order in which they are sent

  constructor(predictions) {
    this.#waiting = new Set(predictions);
  }

  async opened(connection) {
    this.failures = 0;
    const [first] = this.#waiting;
    for (let count = 1; this.#waiting.size; count = connection.maxBatch) await this.#deliver(connection, count);
    if (first) await this.#repeat(connection, first);
  }

  /** Sends the `count` oldest and keeps their receipts; what cannot be taken now stays. */
  async #deliver(connection, count) {
    const sent = [...this.#waiting].slice(0, count);
    for (const [index, answer] of (await this.#answers(connection, sent)).entries()) {
      if (answer.message_type === "confirmation") {
        await this.#keep(sent[index], answer);
      } else {
        const refusal = new GridError(answer);
        if (refusal.passes) return sleep(refusal.pause || BACKOFF_BASE);
        console.log(`REFUSED ${sent[index].prediction_id} ${refusal.message}`);
      }
      this.#waiting.delete(sent[index]);
    }
  }

  /** One answer for each prediction, in order. */
  async #answers(connection, predictions) {
    const messages = predictions.map((prediction) => ({
      ...connection.base("prediction"),
      receiver_hotkey: connection.node,
      prediction,
    }));
    const answer = await connection.call("prediction", messages.length === 1 ? messages[0] : { messages });
    return answer.results ?? messages.map(() => answer);
  }

  async #keep(prediction, receipt) {
    const { prediction_id: id } = prediction;
    const digest = createHash("sha256").update(canonical(prediction)).digest("hex");
    if (receipt.prediction_id !== id || receipt.body_sha256 !== digest) {
      throw new GridError({ code: "bad_receipt", error: `the receipt is not of ${id}` });
    }
    this.#receipts.set(id, receipt);
    await writeFile(join(folder, `${id}.json`), `${JSON.stringify(receipt, null, 2)}\n`);
    console.log(`RECEIPT ${id} ${receipt.code} seq ${receipt.seq}`);
  }

  /** What was sent once may be sent again: nothing happens twice, and the answer is the same. */
  async #repeat(connection, prediction) {
    const [answer] = await this.#answers(connection, [prediction]);
    const kept = this.#receipts.get(prediction.prediction_id);
    if (kept) console.log(`AGAIN ${prediction.prediction_id} ${isDeepStrictEqual(answer, kept)}`);
  }
}

/** Connection after connection. Throws what will not pass. */
async function run(miner) {
  for (;;) {
    const connection = new Connection(miner);
    const end = await connection.ended;
    connection.close();
    if (!end.passes) throw end;
    const pause = Math.max(Math.random() * Math.min(BACKOFF_MAX, BACKOFF_BASE * 2 ** miner.failures++), end.pause);
    console.log(`${end.message}, again in ${(pause / 1000).toFixed(1)} s`);
    await sleep(pause);
  }
}

if (!url || !file || !folder || !apiKey) {
  console.error("usage: predictions.mjs URL PREDICTIONS FOLDER [API_KEY]");
  process.exit(2);
}
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(0));
try {
  await run(new Miner(JSON.parse(await readFile(file, "utf8"))));
} catch (error) {
  console.error(`predictions: ${error.message}`);
  process.exit(1);
}
