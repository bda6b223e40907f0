"""
The simulator as a server: other endpoints, headers, pace, counters, life.
"""

import asyncio
import json
import ssl
import urllib.request

import aiohttp
import pytest

from kimi_async.testing.faults import Drop, Error, FaultPlan
from kimi_async.testing.simulator.models import MODELS
from kimi_async.testing.simulator.replies import Pace
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.testing.simulator.server_limits import ServerLedger, ServerLimits
from support.bare_client import USER, Client, chat, joined

# --- other endpoints and headers -----------------------------------------------------------------------


async def test_models_lists_current_ids_only(client: Client) -> None:
    """Retired models are neither listed nor answered."""
    _, models, _ = await client.json("/models", method="GET")
    _, one, _ = await client.json("/models/kimi-k3", method="GET")
    status, gone, _ = await client.chat(chat(model="kimi-k2.5"))

    assert [model.id for model in MODELS] == [entry["id"] for entry in models["data"]]
    assert next(entry for entry in models["data"] if entry["id"] == "kimi-k3") == one
    assert (404, "Not found the model kimi-k2.5 or Permission denied") == (status, gone["error"]["message"])


async def test_estimate_equals_prompt_tokens(client: Client) -> None:
    """What the tokenizer says beforehand is what chat bills afterwards."""
    _, estimate, _ = await client.json("/tokenizers/estimate-token-count", chat())
    _, body, _ = await client.chat(chat())

    assert estimate["data"]["total_tokens"] == body["usage"]["prompt_tokens"]


async def test_balance_has_the_envelope(client: Client) -> None:
    """code, data, scode and status surround the three amounts."""
    _, body, _ = await client.json("/users/me/balance", method="GET")

    assert ["code", "data", "scode", "status"] == list(body)
    assert {"available_balance", "voucher_balance", "cash_balance"} == body["data"].keys()


async def test_signature_verifies_only_what_was_signed(client: Client) -> None:
    """A nonce brings two headers; they prove that reply and no other."""
    _, _, headers = await client.chat(chat(), X_Msh_Request_Nonce="6f1c")
    claim = {
        "nonce": "6f1c",
        "timestamp": int(headers["Msh-Request-Timestamp"]),
        "model": "kimi-k3",
        "signature": headers["Msh-Request-Signature"],
    }
    _, good, _ = await client.json("/signatures/verify", claim)
    _, bad, _ = await client.json("/signatures/verify", {**claim, "model": "kimi-k2.6"})
    _, _, unsigned = await client.chat(chat())

    assert ({"valid": True}, {"valid": False}) == (good, bad)
    assert claim["signature"].startswith("reqsigv1_")
    assert "Msh-Request-Signature" not in unsigned


@pytest.mark.parametrize("uri", ["moonshot/web-search:latest", "moonshot%2Fweb-search%3Alatest"])
async def test_formula_runs_whether_its_uri_is_escaped_or_not(client: Client, uri: str) -> None:
    """Slashes and the colon of a formula's uri are accepted as they are and percent-encoded."""
    _, tools, _ = await client.json(f"/formulas/{uri}/tools", method="GET")
    name = tools["tools"][0]["function"]["name"]
    _, fiber, _ = await client.json(f"/formulas/{uri}/fibers", {"name": name, "arguments": '{"query":"x"}'})

    assert ("succeeded", "moonshot/web-search:latest") == (fiber["status"], fiber["formula"])
    assert fiber["context"]["encrypted_output"].startswith("----MOONSHOT ENCRYPTED BEGIN----")


async def test_headers_identify_every_reply(client: Client) -> None:
    """Request ids differ from reply to reply and have the official shapes; there is no x-request-id."""
    _, _, first = await client.json("/models", method="GET")
    _, _, second = await client.json("/models", method="GET")

    assert 36 == len(first["Msh-Request-Id"])
    assert 32 == len(first["X-Msh-Trace-Id"])
    assert first["Msh-Request-Id"] != second["Msh-Request-Id"]
    assert "on" == first["Msh-Trace-Mode"]
    assert "x-request-id" not in first
    assert "application/json; charset=utf-8" == first["Content-Type"]


@pytest.mark.parametrize(
    ("authorization", "kind"),
    [
        ("", "incorrect_api_key_error"),
        ("Bearer", "incorrect_api_key_error"),
        ("Bearer nonsense", "incorrect_api_key_error"),
        ("Bearer sk-of-somebody-else", "invalid_authentication_error"),
    ],
)
async def test_key_refused_without_account_ids(client: Client, authorization: str, kind: str) -> None:
    """No or garbled key and a foreign key have their own types; whom the account belongs to is not told."""
    status, body, headers = await client.json("/models", method="GET", Authorization=authorization)

    assert (401, kind) == (status, body["error"]["type"])
    assert "Msh-Org-Id" not in headers


async def test_files_share_key_books_and_faults(sim: KimiSimulator, client: Client) -> None:
    """Files and batches are behind the same door as chat: key, counters, records and faults apply."""
    refused, _, _ = await client.json("/files", method="GET", Authorization="Bearer sk-wrong")
    status, files, headers = await client.json("/files", method="GET")
    sim.faults = FaultPlan([Error("server_error")], path="/files")
    broken, _, _ = await client.json("/files", method="GET")

    assert (401, 200, 500) == (refused, status, broken)
    assert [] == files["data"]
    assert "Msh-Request-Id" in headers
    assert {"GET /v1/files": 3} == sim.stats.by_path
    assert [401, 200, 500] == [request.status for request in sim.requests]
    assert {"error": 1} == sim.stats.faults


async def test_batch_is_answered_by_the_same_model(sim: KimiSimulator, client: Client) -> None:
    """What a batch line gets is what chat would have said; a refused line carries the refusal."""
    question = {"model": "kimi-k2.6", "messages": USER}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for name, body in (("good", question), ("bad", {**question, "temperature": 0}))
    ]
    data = "\n".join(map(json.dumps, lines)).encode()
    file = sim.storage.put("in.jsonl", data, purpose="batch")
    sim.storage.pace.validating = sim.storage.pace.in_progress = sim.storage.pace.finalizing = 0
    order = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    _, batch, _ = await client.json("/batches", order)
    _, batch, _ = await client.json(f"/batches/{batch['id']}", method="GET")
    _, direct, _ = await client.chat(question)
    results = {}
    for key in ("output_file_id", "error_file_id"):
        async with client.open(f"/files/{batch[key]}/content", method="GET") as response:
            results[key] = json.loads(await response.read())

    assert "completed" == batch["status"]
    body = results["output_file_id"]["response"]["body"]
    assert direct["choices"][0]["message"] == body["choices"][0]["message"]
    assert direct["id"] != body["id"]
    assert "invalid temperature" in results["error_file_id"]["error"]["message"]


async def test_unknown_path_and_method_are_404(client: Client) -> None:
    """`POST /v1/models` does not exist, nor do embeddings."""
    wrong_method = await client.json("/models", {}, method="POST")
    wrong_path = await client.json("/embeddings", {}, method="POST")

    assert [404, 404] == [wrong_method[0], wrong_path[0]]


# --- pace, counters, life ------------------------------------------------------------------------------


async def test_pace_spreads_a_stream_over_time() -> None:
    """First token and tempo are kept: n tokens at r per second take n/r seconds, less one gap."""
    pace = Pace(headers=0.02, first_token=0.03, tokens_per_second=1_000)
    async with KimiSimulator(pace=pace, words=(60, 60)) as sim, aiohttp.ClientSession() as session:
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with Client(sim, session).open("/chat/completions", chat(stream=True)) as response:
            headers_at = loop.time() - started
            await response.read()
        took = loop.time() - started

    tokens = sim.stats.events_sent - 3
    assert headers_at >= 0.02
    assert 0.05 + (tokens - 1) / 1_000 <= took < 0.05 + tokens / 1_000 + 5.0


async def test_stats_count_connections_and_requests(sim: KimiSimulator, client: Client) -> None:
    """Sequential calls share a connection; every request and its bytes are on the books."""
    for _ in range(3):
        await client.chat(chat())
    await client.chat(chat(temperature=0))

    stats = sim.stats
    assert (1, 1) == (stats.connections_opened, stats.connections_open)
    assert {"POST /v1/chat/completions": 4} == stats.by_path
    assert {200: 3, 400: 1} == stats.by_status
    assert {"invalid_request_error": 1} == stats.rejected
    assert (0, 1) == (stats.in_flight, stats.peak_in_flight)
    assert [chat()] * 3 == [request.json() for request in list(sim.requests)[:3]]
    assert all(request.finished and request.connection for request in sim.requests)


async def test_stats_see_a_client_that_leaves() -> None:
    """When the client closes a stream the handler ends, and its slot is free again."""
    limits = ServerLedger(ServerLimits(concurrency=1))
    pace = Pace(tokens_per_second=5)
    async with KimiSimulator(pace=pace, limits=limits) as sim, aiohttp.ClientSession() as session:
        client = Client(sim, session)
        async with client.open("/chat/completions", chat(stream=True)) as response:
            await response.content.readany()
            assert (1, 1) == (sim.stats.in_flight, limits.in_flight)
            response.close()
            await sim.until(lambda stats: stats.in_flight == 0)

        assert (0, 1) == (limits.in_flight, sim.stats.clients_gone)
        assert sim.requests[0].client_gone


async def test_until_waits_across_loops() -> None:
    """A test may wait for the counters of a simulator that serves from a thread."""
    with KimiSimulator(pace=Pace(first_token=3600)).in_thread() as sim:
        async with (
            aiohttp.ClientSession() as session,
            Client(sim, session).open("/chat/completions", chat(stream=True)) as response,
        ):
            await sim.until(lambda stats: stats.in_flight == 1)
            response.close()
            await sim.until(lambda stats: stats.in_flight == 0)

    assert 1 == sim.stats.clients_gone


async def test_close_ends_streams_in_progress() -> None:
    """Leaving the context drops open connections at once and may be done twice."""
    sim = KimiSimulator(pace=Pace(first_token=3600))
    await sim.start()
    async with (
        aiohttp.ClientSession() as session,
        Client(sim, session).open("/chat/completions", chat(stream=True)) as response,
    ):
        await sim.close()
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    await sim.close()

    assert 0 == sim.stats.connections_open


async def test_start_and_close_cancelled_anywhere_listen_no_longer() -> None:
    """However its start or its end is cancelled, nobody is left who listens."""

    async def life(server: KimiSimulator) -> None:
        async with server:
            pass

    for turns in range(30):
        server = KimiSimulator()
        task = asyncio.ensure_future(life(server))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if server.port:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(server.host, server.port)


async def test_start_twice_is_an_error(sim: KimiSimulator) -> None:
    """A second start says where the first one listens."""
    with pytest.raises(RuntimeError, match=str(sim.port)):
        await sim.start()


async def test_many_streams_at_once_each_get_their_own_text(sim: KimiSimulator, client: Client) -> None:
    """Fifty interleaved streams do not mix."""
    bodies = [chat([{"role": "user", "content": f"Number {number}"}]) for number in range(50)]
    replies = await asyncio.gather(*map(client.chunks, bodies))

    for number, chunks in enumerate(replies):
        assert joined(chunks, "content").startswith(f"You said: 'Number {number}'.")
    assert 50 == sim.stats.peak_in_flight


async def test_ssl_serves_https() -> None:
    """With a certificate the same server speaks TLS, and a reset still is one."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trusting)
    async with (
        KimiSimulator(ssl=server, faults=[None, Drop(after_events=3)]) as sim,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        client = Client(sim, session)
        status, _, _ = await client.chat(chat())
        with pytest.raises(aiohttp.ClientError):
            await client.chunks(chat())

    assert 200 == status
    assert sim.base_url.startswith("https://")


def test_in_thread_serves_blocking_callers() -> None:
    """A synchronous test can use the simulator too."""
    with KimiSimulator().in_thread() as sim:
        request = urllib.request.Request(
            sim.base_url + "/models", headers={"Authorization": f"Bearer {sim.api_key}"}
        )
        with urllib.request.urlopen(request) as response:
            body = json.load(response)

    assert len(MODELS) == len(body["data"])
    assert 1 == sim.stats.requests
