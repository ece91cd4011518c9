// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// OpenAI's SDK. Retries are off: every error shows.
import OpenAI from "openai";
import {check, failure, headers, main, sleep, spread} from "./lib.mjs";
import {sessions_by} from "./sdk.mjs";

const MODEL = "m", TOKENS = 8;

const client = (url, more = {}) =>
	new OpenAI({baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 15_000, ...more});

const ask = (prompt, more = {}) => ({
	model: MODEL, max_tokens: TOKENS, messages: [{role: "user", content: prompt}], ...more,
});

/** One chat, whole or as a stream: what came and from whom. */
async function chat(openai, prompt, stream, options) {
	if (!stream) {
		const {data, response} = await openai.chat.completions
			.create(ask(prompt), options).withResponse();
		check(data.usage.completion_tokens == TOKENS, data.usage);
		return {status: response.status, text: data.choices[0].message.content,
			server: data.system_fingerprint, finish: data.choices[0].finish_reason};
	}
	const {data, response} = await openai.chat.completions
		.create(ask(prompt, {stream: true, stream_options: {include_usage: true}}), options)
		.withResponse();
	let text = "", server = null, finish = null, usage = null;
	for await (const chunk of data) {
		text += chunk.choices[0]?.delta.content ?? "";
		server = chunk.system_fingerprint ?? server;
		finish = chunk.choices[0]?.finish_reason ?? finish;
		usage = chunk.usage ?? usage;
	}
	check(usage.completion_tokens == TOKENS, usage);
	return {status: response.status, text, server, finish};
}

async function completions(url, {prompts}) {
	const openai = client(url);
	return spread(prompts.length * 2, 4, async (i) => {
		const session = i % prompts.length;
		const body = {model: MODEL, max_tokens: TOKENS, prompt: prompts[session]};
		const options = {headers: headers(session)};
		if (i < prompts.length) {
			const data = await openai.completions.create(body, options);
			return {session, status: 200, text: data.choices[0].text,
				server: data.system_fingerprint};
		}
		let text = "", server = null;
		for await (const chunk of await openai.completions.create({...body, stream: true},
									  options)) {
			text += chunk.choices[0].text;
			server = chunk.system_fingerprint;
		}
		return {session, status: 200, text, server};
	});
}

/** Streams left in the middle: by the loop's break, and by the stream's controller. */
async function abort(url, {count = 4}) {
	const openai = client(url);
	const rows = [];
	for (let i = 0; i < count; i++) {
		const session = i % 2, options = {headers: headers(session)};
		const stream = await openai.chat.completions.create(
			ask("go on", {stream: true, max_tokens: 5000, test_gap_ms: 2}), options);
		let chunks = 0, server = null;
		for await (const chunk of stream) {
			server = chunk.system_fingerprint;
			if (++chunks < 10)
				continue;
			if (i % 4 < 2)
				break;
			stream.controller.abort();
		}
		rows.push({session, status: 200, server, chunks});
		rows.push({session, ...await chat(openai, "hi", false, options)});
	}
	await sleep(20);
	return rows;
}

/** The SDK's own time limit during a long prefill. */
async function timeout(url) {
	const openai = client(url, {timeout: 300});
	return {error: await failure(openai.chat.completions.create(
		ask("a long prompt", {test_prefill_ms: 20_000}), {headers: headers(0)}))};
}

/** Nothing but streams, all sessions over the SDK's own pool. */
async function streams(url, {prompts, count = 144}) {
	const openai = client(url);
	return spread(count, 8, async (i) => {
		const session = i % prompts.length;
		return {session, ...await chat(openai, prompts[session], true,
					       {headers: headers(session)})};
	});
}

await main({sessions: sessions_by(client, chat), completions, abort, timeout, streams});
