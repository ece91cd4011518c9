// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// undici: one pool of two connections for all sessions.
import {Duplex} from "node:stream";
import {Pool} from "undici";
import {check, failure, headers, main, parts, pattern, sleep, spread} from "./lib.mjs";

const SESSIONS = 8;

async function download(pool, session, count, seed, manner, more = {}) {
	const {statusCode, headers: head, body} = await pool.request({
		path: `/bytes/${count}?seed=${seed}&manner=${manner}`, method: "GET",
		headers: headers(session), ...more,
	});
	const data = Buffer.from(await body.arrayBuffer());
	check(data.equals(pattern(count, seed)), "body", count, seed, data.length);
	return {session, status: statusCode, server: head["x-sim-server"]};
}

async function upload(pool, session, count, seed, chunked) {
	const data = pattern(count, seed);
	const {statusCode, headers: head, body} = await pool.request({
		path: "/sink", method: "POST", headers: headers(session),
		body: chunked ? parts(data) : data,
	});
	return {session, status: statusCode, server: head["x-sim-server"], count, seed,
		answer: await body.json()};
}

/** Uploads and downloads of all sizes, the sessions interleaved. */
async function bodies(url, {count = 120}) {
	const pool = new Pool(url, {connections: 2});
	const rows = await spread(count, SESSIONS, (i) => {
		const size = (i * i * 7919) % (i % 10 ? 60_000 : 1_500_000), session = i % SESSIONS;
		return i % 2 ? download(pool, session, size, i, i % 4 == 1 ? "cl" : "chunked")
			     : upload(pool, session, size, i, i % 4 == 0);
	});
	await pool.close();
	return rows;
}

/** Really pipelined: more requests on their way than there are connections. */
async function pipeline(url, {count = 400}) {
	const pool = new Pool(url, {connections: 2, pipelining: 4});
	let running = 0, over = false;
	const watch = () => {
		running = Math.max(running, pool.stats.running);
		if (!over)
			setImmediate(watch);
	};
	watch();
	const rows = await Promise.all(Array.from({length: count}, (_, i) =>
		download(pool, i % SESSIONS, (i * 331) % 20_000, i, i % 2 ? "cl" : "chunked",
			 {blocking: false}))); // the default sends no second before the first's head
	over = true;
	await pool.close();
	return {rows, running};
}

/** Streams that are left in the middle, each followed by an ordinary request. */
async function abort(url, {count = 8}) {
	const pool = new Pool(url, {connections: 2});
	const rows = [];
	for (let i = 0; i < count; i++) {
		const session = i % 2, stop = new AbortController();
		const {body, headers: head} = await pool.request({
			path: "/sse/100000/2000/100", method: "GET", headers: headers(session),
			signal: stop.signal,
		});
		let bytes = 0;
		const reading = (async () => {
			for await (const part of body) {
				bytes += part.length;
				if (bytes > 500)
					stop.abort();
			}
		})();
		rows.push({session, status: 200, server: head["x-sim-server"],
			   error: await failure(reading)});
		rows.push(await download(pool, session, 5000, i, "cl"));
	}
	await sleep(50); // the spare connections that undici opens behind an abort
	await pool.close();
	return rows;
}

/** No head in time, no byte in time; then the pool must still work. */
async function timeouts(url) {
	const pool = new Pool(url, {connections: 2, headersTimeout: 200, bodyTimeout: 200});
	const get = async (path) => {
		const {body} = await pool.request({path, method: "GET", headers: headers("t")});
		return body.text();
	};
	const codes = [await failure(get("/hang")), await failure(get("/sse/9/3000000/100"))];
	const row = await download(pool, "t", 1000, 1, "cl");
	await pool.close();
	return {codes, row};
}

/** Model streams of all sessions over the shared pool; what of each arrived. */
async function streams(url, {count = 144, width = 8}) {
	const pool = new Pool(url, {connections: 4});
	const rows = await spread(count, width, async (i) => {
		const session = i % SESSIONS;
		const {statusCode, headers: head, body} = await pool.request({
			path: "/v1/chat/completions", method: "POST",
			headers: headers(session, {"content-type": "application/json"}),
			body: JSON.stringify({stream: true, max_tokens: 8,
					      messages: [{role: "user", content: `s${session}`}]}),
		});
		const text = await body.text();
		return {session, status: statusCode, server: head["x-sim-server"],
			done: text.endsWith("data: [DONE]\n\n"),
			tokens: text.split('"content"').length - 1};
	});
	await pool.close();
	return rows;
}

/** Each part goes out only when the one before has come back. */
async function echo(url, {count = 20}) {
	const pool = new Pool(url, {connections: 1});
	const duplex = pool.pipeline({path: "/echo", method: "POST", headers: headers("e")},
				     ({body}) => body);
	let got = Buffer.alloc(0);
	const arrived = Duplex.from(duplex)[Symbol.asyncIterator]();
	for (let i = 0; i < count; i++) {
		duplex.write(pattern(1000, i));
		while (got.length < 1000 * (i + 1))
			got = Buffer.concat([got, (await arrived.next()).value]);
		check(got.subarray(1000 * i).equals(pattern(1000, i)), "part", i);
	}
	duplex.end();
	check((await arrived.next()).done, "end");
	await pool.close();
	return {parts: count};
}

await main({bodies, pipeline, abort, timeouts, streams, echo});
