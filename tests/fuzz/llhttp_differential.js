#!/usr/bin/env node
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Compares kvpin's parser with llhttp, Node's: whatever kvpin accepts, llhttp must accept too,
// with the same head end, method, target, status, number of fields and message end. kvpin may
// refuse more; every such class is listed below with its reason.
//
//   tests/fuzz/llhttp_differential.js [INPUTS] [SEED] [PARSE-ONE]
//
// Exits 1 on a difference that no rule explains, 2 on wrong usage.
'use strict';
process.noDeprecation = true;
const { HTTPParser, methods } = process.binding('http_parser');
const { spawnSync } = require('child_process');
const fs = require('fs');
const path = require('path');

const top = path.join(__dirname, '..', '..');
const inputs = Number(process.argv[2] || 20000);
const seed = Number(process.argv[3] || 1);
const parseOne = process.argv[4] || path.join(top, 'build/tests/parse-one');
if (!Number.isInteger(inputs) || !Number.isInteger(seed) || !fs.existsSync(parseOne)) {
	console.error('usage: llhttp_differential.js [INPUTS] [SEED] [PARSE-ONE]; make tests first');
	process.exit(2);
}

// Refused by kvpin, accepted by llhttp. By kvpin's error; one that is not listed is a failure.
const WE_REFUSE_MORE = {
	bad_method: 'llhttp skips any number of empty lines, kvpin four',
	bad_target: 'llhttp lets "*", a fragment and any scheme pass for every method',
	bad_version: 'llhttp takes 0.9 and 2.0 as versions, too, and other text before them',
	bad_status_line: 'llhttp takes status 000 to 099, and empty lines before a status line',
	bare_lf: 'llhttp ends lines at a bare LF',
	bare_cr: 'llhttp takes a bare CR in some places',
	control_byte: 'llhttp lets controls through in some values and reasons',
	obs_fold: 'llhttp unfolds, or skips, continuation lines',
	bad_field_name: 'llhttp lets a blank stand before a colon in places',
	too_many_blanks: 'a limit that llhttp has not',
	head_too_large: 'a limit that llhttp has not',
	target_too_long: 'a limit that llhttp has not',
	too_many_fields: 'a limit that llhttp has not',
	bad_host: 'llhttp does not check Host: missing, repeated, or with blanks in it',
	bad_content_length: 'llhttp takes up to 2^64 - 1, and trailing blanks without limit',
	bad_transfer_encoding: 'llhttp takes codings before chunked, and chunked in HTTP/1.0',
	repeated_content_length: 'a length that llhttp ignores, because the answer has no body',
	content_length_and_chunked: 'llhttp ignores both where the answer has no body',
};
const WE_REFUSE_MORE_OF_A_BODY = {
	bad_chunk_size: 'over 15 digits, or blanks behind the size',
	bad_chunk_extension: 'over 1024 bytes, or controls',
	bad_chunk_end: 'llhttp skips a byte it expects to be LF',
	bad_trailer: 'over 8192 bytes, or a bare LF',
};

// Accepted by kvpin, refused by llhttp: by llhttp's code, and only where the test holds.
const THEY_REFUSE_MORE = [
	{
		code: 'HPE_INVALID_METHOD',
		when: (o) => o.method && !methods.includes(o.method),
		why: 'llhttp knows a list of methods; kvpin takes any token (RFC 9110 9.1)',
	},
	{
		code: 'HPE_INVALID_CONTENT_LENGTH',
		when: (o, c, t) => /^content-length:[ \t]*\d+ *\t$/i.test(lineAt(c, t)),
		why: 'llhttp takes no HTAB behind a length; it is ordinary OWS (RFC 9110 5.5)',
	},
	{
		code: 'HPE_INVALID_TRANSFER_ENCODING',
		when: (o, c) => o.framing === 'chunked' &&
			/\ntransfer-encoding:[ \t]*chunked *\t[ \t]*\r\n/i.test(c.bytes.toString('latin1', 0, o.head)),
		why: 'llhttp does not know chunked with a HTAB behind it; it is ordinary OWS (RFC 9110 5.5)',
	},
	{
		code: 'HPE_INVALID_VERSION',
		when: (o) => o.method === 'PRI',
		why: 'llhttp keeps PRI for the preface of HTTP/2; with an HTTP/1 line it is a token like another',
	},
	{
		code: 'HPE_STRICT',
		when: (o, c, t) => o.framing === 'chunked' && /^[0-9a-f]{1,15};/i.test(lineAt(c, t)),
		why: 'llhttp checks the grammar of chunk extensions; kvpin only that they hold no controls',
	},
	{
		code: 'HPE_INVALID_CONTENT_LENGTH',
		when: (o, c, t) => o.framing === 'chunked' && t.head > 0 && /^content-length:/i.test(lineAt(c, t)),
		why: 'llhttp refuses framing fields in trailers; kvpin ignores them (RFC 9112 7.1.2)',
	},
	{
		code: 'HPE_INVALID_TRANSFER_ENCODING',
		when: (o, c, t) => o.framing === 'chunked' && t.head > 0 && /^transfer-encoding:/i.test(lineAt(c, t)),
		why: 'llhttp refuses framing fields in trailers; kvpin ignores them (RFC 9112 7.1.2)',
	},
];

// Both accept, but llhttp sees a body where there is none.
const THEY_FRAME_OTHERWISE = [
	{
		when: (o, c, t) => c.kind && o.status > 103 && o.status < 200 && o.framing === 'none' &&
			(t.end < 0 || t.end > o.end),
		why: 'llhttp gives 104 to 199 a body if their fields say so; no 1xx has one (RFC 9112 6.3)',
	},
];

// The line, up to there, in which llhttp stopped.
function lineAt(c, theirs) {
	const text = c.bytes.toString('latin1', 0, theirs.at);
	return text.slice(text.lastIndexOf('\n', theirs.at - 2) + 1);
}

function xorshift(state) {
	let x = (state * 2654435761) >>> 0 || 1;
	return (n) => {
		x ^= x << 13; x >>>= 0;
		x ^= x >>> 17;
		x ^= x << 5; x >>>= 0;
		return x % n;
	};
}
const random = xorshift(seed);
const pick = (list) => list[random(list.length)];

function readFrames(buf) {
	const out = [];
	for (let at = 0; at < buf.length;) {
		const len = buf.readUInt32LE(at);
		out.push({ kind: buf[at + 4], answers: buf[at + 5],
			bytes: buf.subarray(at + 6, at + 6 + len) });
		at += 6 + len;
	}
	return out;
}

const CHUNKED_HEAD = Buffer.from('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');

function readCorpus() {
	const out = [];
	for (const which of ['head', 'body']) {
		const dir = path.join(__dirname, 'corpus', which);
		for (const name of fs.readdirSync(dir).sort()) {
			const b = fs.readFileSync(path.join(dir, name));
			if (b.length < 2)
				continue;
			out.push(which === 'head' ?
				{ kind: b[0] & 1, answers: 1, bytes: b.subarray(1) } :
				{ kind: 0, answers: 0, bytes: Buffer.concat([CHUNKED_HEAD, b.subarray(1)]) });
		}
	}
	return out;
}

const TOKENS = ['\r\n', '\n', '\r', '\r\n\r\n', ' ', '\t', ':', ';', ',', '\0', '\x7f', '\x80', '\xff', '#', '*',
	'0', '1', 'a', 'A', '-', '_', '"', '\x0b', '\x0c', 'HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0', 'http://',
	'Content-Length: 5\r\n', 'Content-Length: 0\r\n', 'content-length:\t3 \r\n',
	'Transfer-Encoding: chunked\r\n', 'Transfer-Encoding: gzip, chunked\r\n', 'transfer-encoding:chunked\r\n',
	'Host: b\r\n', 'Connection: close\r\n', 'Connection: Upgrade\r\n', 'Upgrade: h2c\r\n', 'X: y\r\n', ' folded\r\n',
	'Expect: 100-continue\r\n', 'X-Session-Id: k\r\n', '5\r\nabcde\r\n', '0\r\n\r\n', '0\r\nA: b\r\n\r\n',
	'00', 'f', ';a=b', 'GET /b HTTP/1.1\r\nHost: b\r\n\r\n', 'CONNECT', 'OPTIONS', 'PRI', 'HEAD'];

function mutate(seeds) {
	const from = pick(seeds);
	let b = from.bytes.length > 2048 ? from.bytes.subarray(0, 2048) : from.bytes;
	for (let n = 1 + random(3); n; n--) {
		const at = random(b.length + 1);
		const to = Math.min(b.length, at + 1 + random(pick([1, 4, 16])));
		const token = Buffer.from(pick(TOKENS), 'latin1');
		switch (random(7)) {
		case 0: b = Buffer.concat([b.subarray(0, at), token, b.subarray(at)]); break;
		case 1: b = Buffer.concat([b.subarray(0, at), token, b.subarray(to)]); break;
		case 2: b = Buffer.concat([b.subarray(0, at), b.subarray(to)]); break;
		case 3: b = Buffer.concat([b.subarray(0, to), b.subarray(at)]); break;
		case 4:
			b = Buffer.from(b);
			if (at < b.length)
				b[at] = random(256);
			break;
		case 5: { // a line-wise insertion, which stays well formed more often
			const line = b.indexOf('\r\n', at, 'latin1');
			if (line >= 0)
				b = Buffer.concat([b.subarray(0, line + 2), token, b.subarray(line + 2)]);
			break;
		}
		default: {
			const other = pick(seeds).bytes.subarray(0, 1024);
			b = Buffer.concat([b.subarray(0, at), other.subarray(random(other.length + 1))]);
		}
		}
	}
	return { kind: random(20) ? from.kind : 1 - from.kind, answers: random(4) ? from.answers : random(6), bytes: b };
}

function generate() {
	const lines = [];
	const kind = random(2);
	lines.push(kind ? `HTTP/1.${random(2)} ${pick([100, 101, 103, 200, 200, 204, 206, 304, 404, 500])}${pick([' OK', ' ', ''])}` :
		`${pick(['GET', 'POST', 'HEAD', 'OPTIONS', 'PUT', 'CONNECT'])} ${pick(['/', '/a?b=c', '*', 'http://a/b', 'a:80'])} HTTP/1.${pick([1, 1, 1, 0])}`);
	if (random(10))
		lines.push('Host: a');
	for (let n = random(5); n; n--)
		lines.push(pick(TOKENS.filter((t) => t.includes(': '))).replace(/\r\n[^]*/, ''));
	let body = '';
	for (let n = random(4); n; n--)
		body += pick(['5\r\nabcde\r\n', '1;a=b\r\nx\r\n', 'A\r\n0123456789\r\n', '0\r\n\r\n', '0\r\nT: u\r\n\r\n', 'abcde', '00005\r\nabcde\r\n']);
	return { kind, answers: random(6), bytes: Buffer.from(lines.join('\r\n') + '\r\n\r\n' + body, 'latin1') };
}

const METHODS = ['OTHER', 'GET', 'HEAD', 'POST', 'CONNECT', 'OPTIONS'];

// Byte by byte, because execute() goes on into the next message and does not say where one ended.
function llhttp(c) {
	const o = { head: -1, end: -1, code: null };
	const p = new HTTPParser();
	let at = 0, url = '', fields = 0;
	p.initialize(c.kind ? HTTPParser.RESPONSE : HTTPParser.REQUEST, {}, 1 << 20);
	p[HTTPParser.kOnHeaders | 0] = (headers, u) => {
		if (o.head < 0)
			fields += headers.length / 2;
		url += u || '';
	};
	p[HTTPParser.kOnHeadersComplete | 0] = (major, minor, headers, method, u, status, reason, upgrade) => {
		Object.assign(o, { head: at, minor, method: methods[method], target: url + (u || ''), status,
			fields: fields + (headers ? headers.length / 2 : 0), upgrade });
		if (c.kind && METHODS[c.answers] === 'HEAD')
			return 1;
		if (c.kind && METHODS[c.answers] === 'CONNECT' && (status / 100 | 0) === 2)
			return 2;
		return 0;
	};
	p[HTTPParser.kOnBody | 0] = () => {};
	p[HTTPParser.kOnMessageComplete | 0] = () => { o.end = at; };
	while (at < c.bytes.length && o.end < 0) {
		at++;
		const r = p.execute(c.bytes.subarray(at - 1, at));
		if (r instanceof Error) {
			o.code = r.code;
			break;
		}
	}
	o.at = at;
	p.close();
	return o;
}

// Returns null, or what is wrong.
function compare(c, ours, theirs, tally) {
	const note = (table, why) => { tally[table + ': ' + why] = (tally[table + ': ' + why] || 0) + 1; };
	if (!ours.accepted) {
		if (theirs.head < 0)
			return null;
		if (ours.error === 'none')
			return 'kvpin wants more, llhttp has a head';
		if (!WE_REFUSE_MORE[ours.error])
			return `kvpin says ${ours.error}, llhttp accepts`;
		note('kvpin refuses more', `${ours.error} (${WE_REFUSE_MORE[ours.error]})`);
		return null;
	}
	const explained = (code) => THEY_REFUSE_MORE.find((rule) => rule.code === code && rule.when(ours, c, theirs));
	if (theirs.head < 0) {
		const rule = explained(theirs.code);
		if (!rule)
			return `kvpin accepts, llhttp says ${theirs.code} at ${theirs.at}`;
		note('llhttp refuses more', rule.why);
		return null;
	}
	if (ours.head !== theirs.head)
		return `head ends at ${ours.head}, llhttp's at ${theirs.head}`;
	for (const key of c.kind ? ['status', 'minor', 'fields'] : ['method', 'target', 'minor', 'fields'])
		if (ours[key] !== theirs[key])
			return `${key} is ${ours[key]}, llhttp's ${theirs[key]}`;
	// No HTTP follows a switch of protocols; llhttp ends the message there, kvpin counts on.
	if (ours.framing === 'tunnel')
		return theirs.end === theirs.head || theirs.upgrade ? null : 'a tunnel, but not for llhttp';
	// The body of a CONNECT request has no meaning (RFC 9110 9.3.6); neither path forwards one.
	if (!c.kind && ours.method === 'CONNECT')
		return null;
	if (ours.body_error !== 'none') {
		if (theirs.end >= 0 && theirs.end < ours.end)
			return `kvpin refuses a body at ${ours.end}, llhttp ends it at ${theirs.end}`;
		if (theirs.end < 0)
			return null;
		if (!WE_REFUSE_MORE_OF_A_BODY[ours.body_error])
			return `kvpin says ${ours.body_error}, llhttp accepts the body`;
		note('kvpin refuses more', `${ours.body_error} (${WE_REFUSE_MORE_OF_A_BODY[ours.body_error]})`);
		return null;
	}
	if (theirs.code) {
		const rule = explained(theirs.code);
		if (!rule)
			return `kvpin takes the body (${ours.framing}), llhttp says ${theirs.code} at ${theirs.at}`;
		note('llhttp refuses more', rule.why);
		return null;
	}
	if (ours.complete ? ours.end !== theirs.end : theirs.end >= 0) {
		const rule = THEY_FRAME_OTHERWISE.find((r) => r.when(ours, c, theirs));
		if (rule) {
			note('framed otherwise', rule.why);
			return null;
		}
		return `message ends at ${ours.complete ? ours.end : 'a later byte'}, llhttp's at ${theirs.end}` +
			` (${ours.framing})`;
	}
	return null;
}

const fixed = readFrames(spawnSync(parseOne, ['--cases'], { maxBuffer: 1 << 26 }).stdout).concat(readCorpus());
const all = fixed.slice();
for (let n = 0; n < inputs; n++)
	all.push(n % 4 ? mutate(fixed) : generate());

const frames = [];
for (const c of all) {
	const head = Buffer.alloc(6);
	head.writeUInt32LE(c.bytes.length);
	head[4] = c.kind;
	head[5] = c.answers;
	frames.push(head, c.bytes);
}
const run = spawnSync(parseOne, [], { input: Buffer.concat(frames), maxBuffer: 1 << 28 });
const verdicts = run.stdout.toString('latin1').trim().split('\n').map((line) => JSON.parse(line));
if (run.status !== 0 || verdicts.length !== all.length) {
	console.error(`parse-one: status ${run.status}, ${verdicts.length} of ${all.length} verdicts\n${run.stderr}`);
	process.exit(1);
}

const tally = {};
let accepted = 0, wrong = 0;
all.forEach((c, i) => {
	const theirs = llhttp(c);
	const what = compare(c, verdicts[i], theirs, tally);
	accepted += verdicts[i].accepted;
	if (!what)
		return;
	if (++wrong <= 20)
		console.error(`${what}\n  ${['request', 'answer to ' + METHODS[c.answers]][c.kind]}: ` +
			JSON.stringify(c.bytes.toString('latin1').slice(0, 500)));
});
for (const why of Object.keys(tally).sort())
	console.log(`${String(tally[why]).padStart(6)}  ${why}`);
console.log(`${all.length} inputs (${fixed.length} fixed, seed ${seed}), ${accepted} accepted, ${wrong} differences`);
process.exit(wrong ? 1 : 0);
