// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the client scripts share. A script is run as: node CLIENT.mjs SCENARIO URL OPTIONS, with
// OPTIONS in JSON, and prints what its scenario returns as JSON. It checks only what cannot be
// handed over (downloaded bytes); the test that runs it judges the rest.

/** The bytes of the servers' /bytes/COUNT?seed=SEED. */
export function pattern(count, seed = 0) {
	const data = Buffer.alloc(count);
	for (let i = 0; i < count; i++)
		data[i] = (seed + i) % 251;
	return data;
}

/** Uneven parts of a buffer: makes a client send chunks. */
export async function* parts(data, step = 7777) {
	for (let at = 0, n = 1; at < data.length; at += n, n = (n * 3) % step + 1) {
		await null;
		yield data.subarray(at, at + n);
	}
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export function check(what, ...about) {
	if (!what)
		throw new Error("check failed: " + JSON.stringify(about));
}

export const headers = (session, more = {}) =>
	({"x-session-id": `${session}`, "x-sim-verify": "1", ...more});

/** Run `one(i)` for i < count, `width` at a time; the results in order. */
export async function spread(count, width, one) {
	const results = new Array(count);
	let next = 0;
	const lane = async () => {
		while (next < count) {
			const i = next++;
			results[i] = await one(i);
		}
	};
	await Promise.all(Array.from({length: width}, lane));
	return results;
}

/** The error that a promise ends with: its code or name. */
export async function failure(promise) {
	try {
		await promise;
	} catch (error) {
		return error.code ?? error.cause?.code ?? error.constructor.name;
	}
	return null;
}

export async function main(scenarios) {
	const [name, url, options = "{}"] = process.argv.slice(2);
	const result = await scenarios[name](url, JSON.parse(options));
	process.stdout.write(JSON.stringify(result) + "\n");
}
