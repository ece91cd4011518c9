// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Node's own fetch, with the pool that it hides.
import {check, failure, headers, main, parts, pattern, spread} from "./lib.mjs";

const SESSIONS = 8;

async function download(url, session, count, seed, manner) {
	const answer = await fetch(`${url}/bytes/${count}?seed=${seed}&manner=${manner}`,
				   {headers: headers(session)});
	const data = Buffer.from(await answer.arrayBuffer());
	check(data.equals(pattern(count, seed)), "body", count, seed, data.length);
	return {session, status: answer.status, server: answer.headers.get("x-sim-server")};
}

async function upload(url, session, count, seed, chunked) {
	const data = pattern(count, seed);
	const body = chunked ? {body: parts(data), duplex: "half"} : {body: data};
	const answer = await fetch(`${url}/sink`, {method: "POST", headers: headers(session), ...body});
	return {session, status: answer.status, server: answer.headers.get("x-sim-server"), count,
		seed, answer: await answer.json()};
}

async function bodies(url, {count = 80}) {
	return spread(count, SESSIONS, (i) => {
		const size = (i * i * 7919) % (i % 10 ? 60_000 : 1_500_000), session = i % SESSIONS;
		return i % 2 ? download(url, session, size, i, i % 4 == 1 ? "cl" : "chunked")
			     : upload(url, session, size, i, i % 4 == 0);
	});
}

/** Streams left in the middle: by a signal, and by cancelling the reader. */
async function abort(url, {count = 8}) {
	const rows = [];
	for (let i = 0; i < count; i++) {
		const session = i % 2, stop = new AbortController();
		const answer = await fetch(`${url}/sse/100000/2000/100`,
					   {headers: headers(session), signal: stop.signal});
		const reader = answer.body.getReader();
		let bytes = 0, error = null;
		while (bytes < 500)
			bytes += (await reader.read()).value.length;
		if (i % 4 < 2) {
			stop.abort();
			error = await failure(reader.read());
		} else {
			await reader.cancel();
		}
		rows.push({session, status: answer.status, error,
			   server: answer.headers.get("x-sim-server")});
		rows.push(await download(url, session, 5000, i, "cl"));
	}
	return rows;
}

async function timeout(url) {
	const error = await failure(fetch(`${url}/hang`, {signal: AbortSignal.timeout(1500)}));
	return {error, row: await download(url, "t", 1000, 1, "cl")};
}

await main({bodies, abort, timeout});
