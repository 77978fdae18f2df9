// Generates from a prompt and saves the best result:
//   node examples/generate.mjs URL API_KEY PROMPT [FILE]      (or GRID_URL, GRID_API_KEY, GRID_PROMPT, GRID_OUT)
// Prints one line for each update. Exit code 0: saved; 1: refused, failed or too late; 2: wrong usage.

import { createHash, randomUUID } from "node:crypto";
import { rename, writeFile } from "node:fs/promises";
import { io } from "socket.io-client";

const [
  url = process.env.GRID_URL,
  apiKey = process.env.GRID_API_KEY,
  prompt = process.env.GRID_PROMPT,
  file = process.env.GRID_OUT ?? "best.ply",
] = process.argv.slice(2);
const deadlineSeconds = Number(process.env.GRID_DEADLINE_S ?? 600);
const CALL_TIMEOUT = 15_000;
const DOWNLOAD_TIMEOUT = 120_000;
const SILENCE = 30_000;
const GRACE_SECONDS = 60;
const TERMINAL = new Set(["best_results", "failed", "cancelled"]);

class GridError extends Error {
  constructor(body) {
    super(`${body.code ?? "error"}: ${body.error ?? "the node refused"}`);
    this.body = body;
    this.retryable = [408, 429, 500, 502, 503, 504, 507].includes(body.status);
  }
}

const tooLate = () => new GridError({ code: "deadline_exceeded", error: "the task did not end in time" });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Resolves once the socket is connected; a wrong key is refused for good, a missing node is waited for. */
function connected(socket, until) {
  if (socket.connected) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => settle(reject, tooLate()), Math.max(0, until - Date.now()));
    const onError = (error) => error.data?.status && settle(reject, new GridError(error.data));
    const settle = (finish, value) => {
      clearTimeout(timer);
      socket.off("connect", resolved).off("connect_error", onError);
      finish(value);
    };
    const resolved = () => settle(resolve);
    socket.once("connect", resolved).on("connect_error", onError);
    if (!socket.active) socket.connect(); // the client does not reconnect by itself after a server's disconnect
  });
}

/** The ack of an event that may be repeated: again after a broken connection or a passing refusal. */
async function call(socket, event, data, until) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 15_000)) {
    await connected(socket, until);
    let failure;
    try {
      const ack = await socket.timeout(CALL_TIMEOUT).emitWithAck(event, data);
      if (ack.success) return ack;
      failure = new GridError(ack);
      if (!failure.retryable) throw failure;
    } catch (error) {
      if (error instanceof GridError) throw error;
      failure = error; // no ack in time: the connection broke or is mute
    }
    const pause = Math.max(Math.random() * wait, (failure.body?.retry_after ?? 0) * 1000);
    if (Date.now() + pause >= until) throw failure;
    await sleep(pause);
  }
}

/** Every update after `seq` once and in order, over reconnects too; ends with the terminal one. */
async function* updates(socket, taskId, seq, until) {
  const inbox = [];
  let wake = () => {};
  let broken = false;
  const onUpdate = (update) => {
    if (update.task_id === taskId) inbox.push(update);
    wake();
  };
  const onBreak = () => {
    broken = true;
    wake();
  };
  socket.on("task_update", onUpdate).on("disconnect", onBreak);
  try {
    while (Date.now() < until) {
      broken = false;
      const ack = await call(socket, "resume", { task_id: taskId, after_seq: seq }, until);
      inbox.unshift(...ack.updates);
      let whole = true;
      while (whole && !broken) {
        const update = inbox.shift();
        if (!update) {
          const left = Math.min(SILENCE, until - Date.now());
          const woken = await new Promise((resolve) => {
            const timer = setTimeout(() => resolve(false), Math.max(0, left));
            wake = () => (clearTimeout(timer), resolve(true));
          });
          if (!woken) break; // silent for long: ask whether something was missed
        } else if (update.seq === seq + 1) {
          seq += 1;
          yield update;
          if (TERMINAL.has(update.status)) return;
        } else {
          whole = update.seq <= seq; // an old one is dropped, a gap is asked for
        }
      }
    }
    throw tooLate();
  } finally {
    socket.off("task_update", onUpdate).off("disconnect", onBreak);
  }
}

function describe(update) {
  const name = update.status.toUpperCase();
  if (update.results) {
    const { score, hotkey, size, reasons } = update.results;
    return `${name} score ${score} by ${hotkey}, ${size} bytes, reasons: ${reasons?.join(", ") || "none"}`;
  }
  return update.error ? `${name} ${update.error.code}: ${update.error.error}` : name;
}

/** The best result as PLY, its sha256 checked against the ETag before the file appears. */
async function download(taskId) {
  const address = new URL(`tasks/${taskId}/results/best/asset?format=ply`, `${url.replace(/\/$/, "")}/`);
  const response = await fetch(address, {
    headers: { Authorization: `Bearer ${apiKey}`, "Accept-Encoding": "identity" },
    signal: AbortSignal.timeout(DOWNLOAD_TIMEOUT),
  });
  if (!response.ok) throw new GridError(await response.json().catch(() => ({ code: `http_${response.status}` })));
  const bytes = Buffer.from(await response.arrayBuffer());
  const announced = response.headers.get("etag")?.replaceAll('"', "");
  if (createHash("sha256").update(bytes).digest("hex") !== announced) {
    throw new GridError({ code: "sha256_mismatch", error: "the downloaded bytes are not the announced ones" });
  }
  await writeFile(`${file}.part`, bytes);
  await rename(`${file}.part`, file);
  return bytes.length;
}

async function main() {
  if (!url || !apiKey || !prompt) {
    console.error("usage: generate.mjs URL API_KEY PROMPT [FILE]");
    return 2;
  }
  const until = Date.now() + (deadlineSeconds + GRACE_SECONDS) * 1000;
  const socket = io(url, { auth: { api_key: apiKey }, transports: ["websocket"], timeout: CALL_TIMEOUT });
  try {
    const wanted = { prompt, send_first_results: true, deadline_s: deadlineSeconds };
    const ack = await call(socket, "generate", { ...wanted, idempotency_key: randomUUID() }, until);
    console.log(`QUEUED task ${ack.task.id}, position ${ack.task.position}`);
    let last;
    for await (const update of updates(socket, ack.task.id, ack.task.seq, until)) {
      console.log(describe(update));
      last = update;
    }
    if (last?.status !== "best_results") return 1;
    console.log(`SAVED ${file}, ${await download(ack.task.id)} bytes`);
    return 0;
  } finally {
    socket.disconnect();
  }
}

process.exitCode = await main().catch((error) => {
  console.error(`generate: ${error.message}`);
  return 1;
});
