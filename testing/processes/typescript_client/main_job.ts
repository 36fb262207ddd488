// Does the product's main job with a client that was generated as docs/clients.md says.
// The arguments are the API's base URL and a password. It ends with code 0 when all answers were as expected.

import createClient from "openapi-fetch";
import type { components, paths } from "./pipedai.js";

declare const process: { argv: string[] };
const [baseUrl, password] = process.argv.slice(2);
if (!baseUrl || !password) throw new Error("usage: main_job.js BASE_URL PASSWORD");

type Answer<Data> = { data?: Data; error?: unknown; response: Response };

function expectStatus<Data>(answer: Answer<Data>, status: number): NonNullable<Data> {
  if (answer.response.status !== status || answer.data == null) {
    throw new Error(`${answer.response.url}: ${answer.response.status} ${JSON.stringify(answer.error)}`);
  }
  return answer.data;
}

function expectEqual<Value>(value: Value, expected: Value): void {
  if (JSON.stringify(value) !== JSON.stringify(expected)) {
    throw new Error(`${JSON.stringify(value)} is not ${JSON.stringify(expected)}`);
  }
}

const bearer = (token: string) =>
  createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

// A person's browser keeps the cookie by itself. Node does not.
const anybody = createClient<paths>({ baseUrl });
const registered = await anybody.POST("/auth/register", {
  body: { email: "grace@example.com", password },
});
expectEqual(expectStatus(registered, 201).user.email, "grace@example.com");
const cookie = registered.response.headers.getSetCookie()[0]?.split(";")[0] ?? "";
const person = createClient<paths>({ baseUrl, headers: { Cookie: cookie } });

const workspace = expectStatus(await person.POST("/workspaces", { body: { name: "Acme" } }), 201);
const environment = expectStatus(
  await person.POST("/workspaces/{wsId}/environments", {
    params: { path: { wsId: workspace.id } },
    body: { name: "production" },
  }),
  201,
);
const inEnvironment = { path: { envId: environment.id } };
const key = async (body: components["schemas"]["CreateApiKeyBody"]) =>
  expectStatus(
    await person.POST("/environments/{envId}/api-keys", { params: inEnvironment, body }),
    201,
  ).token;
const script = bearer(await key({ name: "script", prefix: "pwk", role: "admin" }));
const host = bearer(await key({ name: "host", prefix: "wrk" }));

const machine = expectStatus(
  await host.POST("/workers/register", {
    body: { hostname: "build-1", os: "linux", version: "1.0.0" },
  }),
  201,
);
const trigger = expectStatus(
  await script.POST("/environments/{envId}/triggers", {
    params: inEnvironment,
    // Fields with defaults may be left out.
    body: {
      name: "Morning report",
      prompt: "Work.",
      mcpUrl: "https://mcp.example/",
      mcpHeaders: { "x-api-key": "a-secret" },
      workerId: machine.workerId,
      maxRetries: 0,
    },
  }),
  201,
);
expectEqual([trigger.maxRetries, trigger.timeoutSeconds], [0, 1800]);
const ofTrigger = { path: { id: trigger.id } };
const renamed = expectStatus(
  await script.PATCH("/triggers/{id}", { params: ofTrigger, body: { name: "Report" } }),
  200,
);
expectEqual([renamed.name, renamed.maxRetries], ["Report", 0]);
const order = {
  params: { ...ofTrigger, header: { "Idempotency-Key": "once" } },
  body: { payload: { day: "monday" } },
};
const run = expectStatus(await script.POST("/triggers/{id}/run", order), 201);
expectEqual(expectStatus(await script.POST("/triggers/{id}/run", order), 200).id, run.id);

const worker = bearer(machine.workerToken);
const polled = expectStatus(
  await worker.GET("/workers/{id}/poll", {
    params: { path: { id: machine.workerId }, query: { wait: 5 } },
  }),
  200,
);
expectEqual(
  polled.runs.map(({ id, payload, mcpHeaders }) => [id, payload, mcpHeaders]),
  [[run.id, { day: "monday" }, { "x-api-key": "a-secret" }]],
);
const held = { path: { id: machine.workerId, runId: run.id } };
const claim = { params: held, body: { claimId: "1" } };
expectStatus(await worker.POST("/workers/{id}/runs/{runId}/claim", claim), 200);
expectStatus(
  await worker.POST("/workers/{id}/runs/{runId}/start", { params: held, body: {} }),
  200,
);
expectStatus(
  await worker.POST("/workers/{id}/runs/{runId}/heartbeat", { params: held, body: {} }),
  200,
);
expectStatus(
  await worker.POST("/workers/{id}/runs/{runId}/complete", {
    params: held,
    body: { status: "succeeded", costUsd: "0.012" },
  }),
  200,
);
const refused = await worker.POST("/workers/{id}/runs/{runId}/start", {
  params: held,
  body: {},
});
// Errors of different statuses have different fields.
const state = refused.error && "status" in refused.error ? refused.error.status : null;
expectEqual([refused.response.status, state], [409, "succeeded"]);
// Every error has a code, whose type lists all that there are.
const expected: components["schemas"]["ErrorCode"] = "run_state";
expectEqual(refused.error?.code, expected);
// @ts-expect-error This is no code of the API.
if (refused.error?.code === "no_such_code") throw new Error("impossible");

const ended = expectStatus(
  await script.GET("/runs/{id}", { params: { path: { id: run.id } } }),
  200,
);
expectEqual([ended.status, ended.costUsd], ["succeeded", "0.012"]);
const page = expectStatus(
  await script.GET("/environments/{envId}/runs", {
    params: { ...inEnvironment, query: { status: ["succeeded"] } },
  }),
  200,
);
expectEqual(page.items.map((item) => item.id), [run.id]);
