// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Anthropic's SDK. Retries are off: every error shows.
import Anthropic from "@anthropic-ai/sdk";
import {Agent, fetch as undiciFetch} from "undici";
import {check, failure, headers, main, sleep, spread} from "./lib.mjs";

const MODEL = "m", TOKENS = 8;

const client = (url, more = {}) =>
	new Anthropic({baseURL: url, apiKey: "none", maxRetries: 0, timeout: 15_000, ...more});

const ask = (prompt, more = {}) => ({
	model: MODEL, max_tokens: TOKENS, messages: [{role: "user", content: prompt}], ...more,
});

async function chat(anthropic, prompt, stream, options) {
	const request = stream ? anthropic.messages.create(ask(prompt, {stream: true}), options)
			       : anthropic.messages.create(ask(prompt), options);
	const {data, response} = await request.withResponse();
	const row = {status: response.status, server: response.headers.get("x-sim-server")};
	if (!stream) {
		check(data.usage.output_tokens == TOKENS, data.usage);
		check(data.system_fingerprint == row.server, data.system_fingerprint, row.server);
		return {...row, text: data.content[0].text, finish: data.stop_reason};
	}
	let text = "", finish = null, ended = false;
	for await (const event of data) {
		if (event.type == "message_start")
			check(event.message.system_fingerprint == row.server, event, row.server);
		if (event.type == "content_block_delta")
			text += event.delta.text;
		finish = event.delta?.stop_reason ?? finish;
		ended = event.type == "message_stop";
	}
	check(ended, "message_stop");
	return {...row, text, finish};
}

/** Sessions share one client; the session is named per request. */
async function per_request(url, {prompts, count = 48}) {
	const anthropic = client(url);
	return spread(count, prompts.length, async (i) => {
		const session = i % prompts.length;
		return {session, ...await chat(anthropic, prompts[session],
					       Math.floor(i / prompts.length) % 2,
					       {headers: headers(session)})};
	});
}

/** A client per session, named by its default headers; all over one agent of two connections. */
async function per_client(url, {prompts, count = 48}) {
	const dispatcher = new Agent({connections: 2});
	const clients = prompts.map((_, session) => client(url, {
		defaultHeaders: headers(session), fetch: undiciFetch, fetchOptions: {dispatcher},
	}));
	const rows = await spread(count, prompts.length, async (i) => {
		const session = i % prompts.length;
		return {session, ...await chat(clients[session], prompts[session],
					       Math.floor(i / prompts.length) % 2)};
	});
	await dispatcher.close();
	return rows;
}

/** The SDK's accumulating stream helper, left in the middle every other time. */
async function abort(url, {count = 4}) {
	const anthropic = client(url);
	const rows = [];
	for (let i = 0; i < count; i++) {
		const session = i % 2, options = {headers: headers(session)};
		const stream = anthropic.messages.stream(
			ask("go on", {max_tokens: 5000, test_gap_ms: 2}), options);
		let chunks = 0;
		const failed = await failure((async () => {
			for await (const event of stream)
				if (event.type == "content_block_delta" && ++chunks == 10)
					stream.abort();
		})());
		rows.push({session, status: 200, chunks, error: failed,
			   server: stream.response.headers.get("x-sim-server")});
		rows.push({session, ...await chat(anthropic, "hi", false, options)});
	}
	await sleep(20);
	return rows;
}

async function timeout(url) {
	const anthropic = client(url, {timeout: 300});
	return {error: await failure(anthropic.messages.create(
		ask("a long prompt", {test_prefill_ms: 20_000}), {headers: headers(0)}))};
}

/** Both ways of naming a session, one after the other. */
async function sessions(url, options) {
	return [await per_request(url, options), await per_client(url, options)];
}

await main({sessions, abort, timeout});
