// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the scripts of SDKs share: chats of several sessions. `client` makes one of an SDK's clients
// from a URL and more options; `chat` has it say one thing, whole or as a stream.
import {Agent, fetch as undiciFetch} from "undici";
import {headers, spread} from "./lib.mjs";

/** All over one client; the session is named per request. */
async function per_request(url, client, chat, {prompts, count = 48}) {
	const shared = client(url);
	return spread(count, prompts.length, async (i) => {
		const session = i % prompts.length;
		return {session, ...await chat(shared, prompts[session],
					       Math.floor(i / prompts.length) % 2,
					       {headers: headers(session)})};
	});
}

/** A client per session, named by its default headers; all over one agent of two connections. */
async function per_client(url, client, chat, {prompts, count = 48}) {
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

/** The scenario: both ways of naming a session, one after the other. */
export const sessions_by = (client, chat) => async (url, options) =>
	[await per_request(url, client, chat, options), await per_client(url, client, chat, options)];
