// Serves a safetensors file, finds it, fetches it and runs it:
//   node examples/models.mjs URL MODEL_ID FILE SPEC [API_KEY]      (API_KEY or GRID_API_KEY)
// SPEC is a JSON file: {"architecture": ..., "inputs": [...], "data": nested list}, see docs/models.md.
// Prints one line for each step. Exit code 0: done; 1: refused or broken; 2: wrong usage.

import { createHash, randomUUID } from "node:crypto";
import { open, readFile, rename, stat, unlink } from "node:fs/promises";
import { io } from "socket.io-client";

const [url, modelId, file, specFile, apiKey = process.env.GRID_API_KEY] = process.argv.slice(2);
const CALL_TIMEOUT = 30_000;
const EVENT_MAX = 512 * 1024; // bytes; larger models are uploaded in pieces
const PIECE = 4 * 1024 * 1024;
const TRIES = 5;
const TUS = { "Tus-Resumable": "1.0.0" };
const authorization = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};

class GridError extends Error {
  constructor(body) {
    super(`${body.code ?? "error"}: ${body.error ?? "the node refused"}`);
    this.body = body;
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const address = (path) => new URL(path, `${url.replace(/\/$/, "")}/`);
const idInPath = encodeURIComponent(modelId ?? "");

/** The ack of an event, unless it is a refusal. */
async function call(socket, event, data = {}) {
  const ack = await socket.timeout(CALL_TIMEOUT).emitWithAck(event, data);
  if (ack.success === false) throw new GridError(ack);
  return ack;
}

async function request(path, options = {}) {
  const answer = await fetch(address(path), { ...options, headers: { ...authorization, ...options.headers } });
  if (answer.ok) return answer;
  throw new GridError(await answer.json().catch(() => ({ code: `http_${answer.status}` })));
}

async function sha256Of(path) {
  const digest = createHash("sha256");
  const handle = await open(path);
  for await (const piece of handle.createReadStream()) digest.update(piece);
  return digest.digest("hex");
}

/** One line that is drawn over and over; nothing where nobody looks. */
function progress(label, done, total) {
  if (!process.stderr.isTTY) return;
  const full = Math.floor((30 * done) / Math.max(total, 1));
  const end = done >= total ? "\n" : "";
  process.stderr.write(`\r${label} [${"#".repeat(full)}${".".repeat(30 - full)}] ${done}/${total} bytes${end}`);
}

// --- serving: a small model as an event, a large one by tus 1.0.0 (https://tus.io/protocols/resumable-upload)

async function serve(socket, fields, size) {
  if (size > EVENT_MAX) return upload(fields, size);
  const ack = await call(socket, "/serve_model", {
    ...fields,
    model: await readFile(file),
    idempotency_key: randomUUID(),
  });
  return ack.message;
}

async function upload(fields, size) {
  const text = (value) => {
    if (typeof value === "boolean") return value ? "True" : "False";
    return typeof value === "string" ? value : JSON.stringify(value);
  };
  const coded = Object.entries(fields).map(([name, value]) => `${name} ${Buffer.from(text(value)).toString("base64")}`);
  const headers = { ...TUS, "Upload-Length": String(size), "Upload-Metadata": coded.join(",") };
  const made = await request("uploads", { method: "POST", headers });
  const location = new URL(made.headers.get("location"), address("uploads")).pathname;
  const handle = await open(file);
  try {
    await append(handle, location, size);
  } finally {
    await handle.close();
  }
  return published(location);
}

/** Every piece; after a break the node is asked how much of it came. */
async function append(handle, location, size) {
  const piece = Buffer.alloc(PIECE);
  for (let offset = 0, tries = 0; offset < size; ) {
    const { bytesRead } = await handle.read(piece, 0, PIECE, offset);
    const headers = { ...TUS, "Upload-Offset": String(offset), "Content-Type": "application/offset+octet-stream" };
    try {
      const answer = await request(location, { method: "PATCH", headers, body: piece.subarray(0, bytesRead) });
      offset = Number(answer.headers.get("upload-offset"));
      tries = 0;
    } catch (error) {
      const passing = !(error instanceof GridError) || error.body.status >= 500 || error.body.code === "offset_mismatch";
      if (!passing || ++tries > TRIES) throw error;
      await sleep(500 * 2 ** tries);
      offset = Number((await request(location, { method: "HEAD", headers: TUS })).headers.get("upload-offset"));
    }
    progress("upload", offset, size);
  }
}

async function published(location) {
  for (;;) {
    const said = await (await request(location, { headers: TUS })).json();
    if (said.state === "published") return `Model saved with id: ${said.model_id}`;
    if (said.state === "rejected") throw new GridError(said.error);
    await sleep(500);
  }
}

// --- fetching: streamed to disk, its sha256 compared with the ETag before the file appears

async function fetchModel(target) {
  const answer = await request(`models/${idInPath}/content`, { headers: { "Accept-Encoding": "identity" } });
  const total = Number(answer.headers.get("content-length"));
  const digest = createHash("sha256");
  const part = `${target}.part`;
  const handle = await open(part, "w");
  let done = 0;
  try {
    for await (const piece of answer.body) {
      digest.update(piece);
      await handle.write(piece);
      done += piece.length;
      progress("fetch", done, total);
    }
  } finally {
    await handle.close();
  }
  const announced = answer.headers.get("etag")?.replaceAll('"', "");
  if (digest.digest("hex") !== announced) {
    await unlink(part);
    throw new GridError({ code: "sha256_mismatch", error: "the fetched bytes are not the announced ones" });
  }
  await rename(part, target);
  return { size: done, sha256: announced };
}

async function main() {
  if (!url || !modelId || !file || !specFile) {
    console.error("usage: models.mjs URL MODEL_ID FILE SPEC [API_KEY]");
    return 2;
  }
  const spec = JSON.parse(await readFile(specFile, "utf8"));
  const { size } = await stat(file);
  const sha256 = await sha256Of(file);
  const auth = apiKey ? { api_key: apiKey } : {};
  const socket = io(url, { auth, transports: ["websocket"], timeout: CALL_TIMEOUT });
  socket.on("connect_error", (error) => {
    if (!error.data?.status) return; // no node there yet: the client tries again
    console.error(`models: ${new GridError(error.data).message}`);
    process.exit(1);
  });
  try {
    const { architecture, inputs, data } = spec;
    const fields = { model_id: modelId, sha256, format: "safetensors", architecture, inputs };
    console.log(`SERVED ${await serve(socket, { ...fields, allow_download: true, allow_remote_inference: true }, size)}`);

    const { models } = await call(socket, "/models");
    console.log(`LISTED ${models.includes(modelId)}`);
    await call(socket, `/is_model_copy_allowed/${idInPath}`);
    console.log("COPY allowed");

    if (size <= EVENT_MAX) {
      const { serialized_model: bytes } = await call(socket, `/get_model/${idInPath}`);
      console.log(`GOT ${bytes.length} bytes, ${createHash("sha256").update(bytes).digest("hex") === sha256}`);
    }
    const fetched = await fetchModel(`${modelId}.fetched`);
    console.log(`FETCHED ${fetched.size} bytes, ${fetched.sha256 === sha256}`);

    const { prediction } = await call(socket, "/run_inference", { model_id: modelId, data });
    console.log(`PREDICTION ${JSON.stringify(prediction)}`);

    await call(socket, "/register_dataset", { dataset_id: `${modelId} data`, tags: ["digits", modelId] });
    console.log(`TAGS ${JSON.stringify(await call(socket, "/dataset-tags"))}`);
    const { content } = await call(socket, "/search", { query: ["digits", modelId] });
    console.log(`SEARCH ${content}`);

    const shares = ["alice", "bob"].map((worker) => ({ worker, address: `http://${worker}.example` }));
    const encrypted = `${modelId} encrypted`;
    await call(socket, "/serve_model", { model_id: encrypted, mpc: true, shares });
    const { workers } = await call(socket, "/search-encrypted-models", { model_id: encrypted });
    console.log(`ENCRYPTED ${workers.join(", ")}`);
    return 0;
  } finally {
    socket.disconnect();
  }
}

process.exitCode = await main().catch((error) => {
  console.error(`models: ${error.message}`);
  return 1;
});
