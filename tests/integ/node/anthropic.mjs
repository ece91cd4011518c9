// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Anthropic's SDK. Retries are off: every error shows.
import Anthropic from "@anthropic-ai/sdk";
import {check, failure, headers, main, sleep} from "./lib.mjs";
import {sessions_by} from "./sdk.mjs";

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

await main({sessions: sessions_by(client, chat), abort, timeout});
