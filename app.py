"""create_app: the one place where the parts of the node are joined. No logic."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask
from flask_migrate import Migrate
from grid_client.holders import Holder
from grid_client.triples import Provider
from sqlalchemy import Engine
from werkzeug.middleware.proxy_fix import ProxyFix

from events.server import SocketFace
from grid_node.adapters.chain import EarnedScores, NodeMetagraph
from grid_node.adapters.cloudflare_api import CloudflareTunnels
from grid_node.adapters.cog_worker import CogWorkers
from grid_node.adapters.generation import (
    KeyGate,
    ResultSignatures,
    StoredUploads,
    WorkerAuthentication,
    WorkerRegistry,
)
from grid_node.adapters.hosting import ModelAccess
from grid_node.adapters.predictions import HotkeyRegistry, HotkeySignatures, MinerAuthentication, NodeSigner
from grid_node.adapters.runners import KeyCharge, RunnerAccess
from grid_node.adapters.socket_tunnel import SocketTunnel
from grid_node.blobs.factory import make_blobs
from grid_node.blobs.holds import Holds
from grid_node.blobs.store import Blobs
from grid_node.census import Census
from grid_node.chain.access import ChainAccess
from grid_node.chain.auto import AutoWeights
from grid_node.chain.link import ChainLink
from grid_node.chain.metagraph import ChainMetagraph
from grid_node.chain.metrics import ChainMetrics
from grid_node.chain.proposals import Proposals
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.reads import ChainReads
from grid_node.chain.weights import Weights
from grid_node.chain.writes import ChainWrites
from grid_node.cli import configuration, register_commands
from grid_node.clock import Clock, SystemClock
from grid_node.compute.checks import Checks
from grid_node.compute.client import ComputeProcesses
from grid_node.compute.ring import Ring
from grid_node.compute.splitting import Splitting
from grid_node.database import (
    DirectStore,
    GroupCommitStore,
    Offload,
    Store,
    db,
    engine_options,
    plain_call,
    set_pragmas,
)
from grid_node.generation.dispatch import Dispatcher
from grid_node.generation.leases import Kind, Leases
from grid_node.generation.lifecycle import Lifecycle
from grid_node.generation.rounds import Rounds
from grid_node.generation.tasks import Tasks
from grid_node.generation.tending import Tending
from grid_node.generation.verdicts import Verdicts
from grid_node.generation.work import Work
from grid_node.hosting.datasets import Datasets
from grid_node.hosting.encrypted import Encrypted
from grid_node.hosting.inference import Inference
from grid_node.hosting.integrity import Damages, GuardedBlobs
from grid_node.hosting.placement import Placing, peers_of
from grid_node.hosting.reading import Deleting, Reading
from grid_node.hosting.replays import Replays
from grid_node.hosting.rows import note_kill
from grid_node.hosting.scrub import Scrub
from grid_node.hosting.secure_linear import Secure, SecureLinear, Triples
from grid_node.hosting.serving import Serving
from grid_node.http import register_routes
from grid_node.identity.challenge import Authenticator
from grid_node.identity.epistula import Epistula
from grid_node.identity.limits import DatabaseLimiter, Limiter
from grid_node.identity.node_key import NodeKey
from grid_node.identity.redis_limits import RedisLimiter
from grid_node.identity.service import KeyService
from grid_node.identity.standing import AllowList, LastKnown, Metagraph
from grid_node.jobs.queue import JobQueue, make_errand_queue, make_huey
from grid_node.jobs.scoring import ScoringJobs
from grid_node.jobs.supervisor import ERRANDS, Supervisor
from grid_node.jobs.worker_settings import scoring_settings
from grid_node.kinds import load_kinds, offered_by_anybody
from grid_node.metrics import Metrics
from grid_node.node import Node
from grid_node.predictions.games import Games
from grid_node.predictions.service import Predictions
from grid_node.predictions.settlement import Settling
from grid_node.predictions.update_log import UpdateLog
from grid_node.runners.changes import Changes
from grid_node.runners.deliveries import Deliveries
from grid_node.runners.dispatch import Dispatching
from grid_node.runners.files import RunnerFiles
from grid_node.runners.hook_secrets import HookSecrets
from grid_node.runners.ports import TunnelProvider
from grid_node.runners.predictions import RunnerPredictions
from grid_node.runners.registration import Registration
from grid_node.runners.removal import REQUEST
from grid_node.runners.replays import Replays as RunnerReplays
from grid_node.runners.secrets_box import SecretsBox
from grid_node.runners.watching import Watching
from grid_node.runners.webhooks import Webhooks
from grid_node.secret import node_secret
from grid_node.services import Chaining, Hosting, Predicting, Running, Services
from grid_node.settings import Settings
from grid_node.streams.bells import make_bells
from grid_node.streams.service import Streams
from grid_node.uploads.service import UploadService


def create_app(
    settings: Settings | None = None,
    *,
    clock: Clock | None = None,
    pylon: PylonSettings | None = None,
    **overrides: Any,
) -> Flask:
    """The Flask app with every service, route, event and command. Nothing runs in the background before
    `app.extensions["grid_node"].start()`. Raises BadSetting."""
    with configuration():
        settings = settings or Settings.load(**overrides)
        pylon = pylon or PylonSettings.load(settings=settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    app = Flask("grid_node")
    engine = _database(app, settings)
    offload = _offload(settings.async_mode)
    store = _store(engine, settings, offload)
    services = _services(settings, pylon, clock or SystemClock(), store, offload)
    app.extensions["grid"] = services
    sockets = SocketFace(app, services)
    face = register_routes(app, services, sockets.server)
    register_commands(app)
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies)  # type: ignore[method-assign]
    app.extensions["grid_node"] = Node(services, sockets, face)
    return app


def _database(app: Flask, settings: Settings) -> Engine:
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.database
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(settings.database, settings.db_pool, settings.lock_timeout)
    db.init_app(app)
    Migrate(app, db, directory=str(Path(__file__).parent / "migrations"))
    with app.app_context():
        engine = db.engine
    if engine.dialect.name == "sqlite":
        set_pragmas(engine)
    return engine


def _offload(async_mode: str) -> Offload:
    """How a call leaves the hub: eventlet's thread pool, or not at all where every thread is a real one."""
    if async_mode == "eventlet":
        from eventlet import tpool  # noqa: PLC0415 - only this mode knows eventlet

        return tpool.execute
    return plain_call


def _store(engine: Engine, settings: Settings, offload: Offload) -> Store:
    if engine.dialect.name == "sqlite":
        return GroupCommitStore(engine, offload, batch=settings.commit_batch, lock_timeout=settings.lock_timeout)
    return DirectStore(engine)


def _services(settings: Settings, pylon: PylonSettings, clock: Clock, store: Store, offload: Offload) -> Services:
    data = settings.data_dir.resolve()
    node_key = NodeKey.load(settings)
    keys = KeyService(store, clock, settings)
    limiter: Limiter = RedisLimiter(settings.redis_url) if settings.redis_url else DatabaseLimiter()
    metrics = Metrics()
    listed = AllowList(store, clock)
    chain = _chain(settings, pylon, clock, store, listed, metrics)
    metagraph = NodeMetagraph(listed, chain.metagraph, settings)
    stored = make_blobs(settings.blobs, data / "blob-cache", offload)
    damages = Damages(store, clock, metrics.damaged.inc)
    blobs = GuardedBlobs(stored, damages)
    holds = Holds(store, blobs, clock)
    uploads = UploadService(store, blobs, clock, data / "uploads", offload, holds=holds)
    kinds = load_kinds(scoring_settings(settings), node_secret(data))
    crowd_kinds = offered_by_anybody(kinds)
    streams = Streams(store)
    bells = make_bells(data, settings.redis_url)
    streams.ring = bells.ring
    lifecycle = Lifecycle(streams, settings)
    verdicts = Verdicts(streams, lifecycle, settings)
    leases = Leases(store, clock, settings, streams, lifecycle, verdicts, kinds, node_key.hotkey)
    dispatcher = Dispatcher(store, clock, settings, Rounds(settings, leases, lifecycle))
    work = Work(
        store,
        clock,
        settings,
        streams,
        leases,
        dispatcher,
        blobs,
        StoredUploads(store, uploads),
        WorkerRegistry(metagraph),
        ResultSignatures(node_key.hotkey),
        crowd_kinds,
    )
    jobs = ScoringJobs(store, clock, settings, verdicts)
    scrub = Scrub(store, stored, damages, clock, data / "scrub.json", settings.blob_scrub_interval)
    hosting = _hosting(settings, clock, store, offload, keys, blobs, holds, scrub)
    predicting = _predicting(settings, clock, store, keys, node_key, metagraph, metrics)
    predicting.log.ring = bells.ring
    running = _running(
        settings, clock, store, offload, keys, limiter, streams, blobs, holds, node_key, work, dispatcher, kinds
    )
    return Services(
        settings=settings,
        clock=clock,
        store=store,
        keys=keys,
        limiter=limiter,
        metagraph=metagraph,
        node_key=node_key,
        streams=streams,
        bells=bells,
        blobs=blobs,
        holds=holds,
        uploads=uploads,
        kinds=kinds,
        lifecycle=lifecycle,
        tasks=Tasks(store, clock, settings, streams, lifecycle, KeyGate(keys, limiter)),
        leases=leases,
        work=work,
        dispatcher=dispatcher,
        tending=Tending(store, clock, settings, leases, lifecycle),
        scoring_jobs=jobs,
        job_queue=JobQueue(make_huey(settings)),
        supervisor=Supervisor(settings, settings.scoring_processes, jobs.process_died, jobs.interrupted),
        metrics=metrics,
        census=Census(store, clock, metrics, kinds),
        epistula=Epistula(store, clock, node_key.hotkey, settings),
        authentication=WorkerAuthentication(
            settings, clock, keys, Authenticator(node_key, metagraph, clock, settings), node_key, crowd_kinds
        ),
        hosting=hosting,
        predicting=predicting,
        running=running,
        chain=chain,
    )


def _chain(
    settings: Settings, pylon: PylonSettings, clock: Clock, store: Store, listed: AllowList, metrics: Metrics
) -> Chaining:
    measured = ChainMetrics(metrics.registry)
    link = ChainLink(settings, pylon)
    reads = ChainReads(link, clock, settings, pylon, measured)
    weights = Weights(store, clock, settings, pylon, reads, link)
    proposals = Proposals(EarnedScores(store, listed), reads, link, clock, settings, pylon)
    metagraph = ChainMetagraph(reads, clock, settings, pylon)
    link.on_beat, link.on_samples = reads.on_beat, measured.absorb
    return Chaining(
        pylon=pylon,
        backend=reads.backend,
        access=ChainAccess(settings, pylon, clock, node_secret(settings.data_dir)),
        link=link,
        reads=reads,
        metagraph=metagraph,
        weights=weights,
        writes=ChainWrites(link, reads),
        proposals=proposals,
        auto=AutoWeights(clock, settings, pylon, reads, weights, proposals),
        metrics=measured,
    )


def _hosting(
    settings: Settings,
    clock: Clock,
    store: Store,
    offload: Offload,
    keys: KeyService,
    blobs: Blobs,
    holds: Holds,
    scrub: Scrub,
) -> Hosting:
    compute = ComputeProcesses(settings, lambda key: store.write(partial(note_kill, key=key)))
    checks = Checks(settings, offload)
    peers, nameless = peers_of(settings.share_peers), settings.data_dir.resolve() / "splitting"
    placing = Placing(store, clock, peers, Holder)
    replays = Replays(node_secret(settings.data_dir))
    encrypted = Encrypted(store, clock, settings, blobs, offload, checks, Splitting(settings, nameless), placing)
    reading, ring = Reading(store, blobs), Ring(settings, nameless)
    linear = SecureLinear(clock, reading, blobs, offload, ring, peers, Provider)
    return Hosting(
        access=ModelAccess(store, clock, keys, settings.models_auth),
        reading=reading,
        serving=Serving(store, clock, settings, blobs, holds, checks, compute, encrypted, replays),
        deleting=Deleting(store, compute, encrypted),
        inference=Inference(store, blobs, compute, settings),
        encrypted=encrypted,
        secure=Secure(ring, Triples(clock, settings, ring), linear),
        datasets=Datasets(store, clock, settings),
        checks=checks,
        compute=compute,
        scrub=scrub,
        offload=offload,
    )


def _predicting(
    settings: Settings,
    clock: Clock,
    store: Store,
    keys: KeyService,
    node_key: NodeKey,
    metagraph: Metagraph,
    metrics: Metrics,
) -> Predicting:
    known = LastKnown(metagraph, clock, settings.registration_max_age)
    signer, signatures = NodeSigner(node_key, clock), HotkeySignatures()
    log = UpdateLog(store, clock, settings, signer)
    authenticator = Authenticator(node_key, known, clock, settings)
    return Predicting(
        registry=HotkeyRegistry(known),
        signatures=signatures,
        signer=signer,
        authentication=MinerAuthentication(settings, clock, keys, authenticator, signer),
        log=log,
        games=Games(store, clock, settings, log),
        predictions=Predictions(store, clock, settings, signer, signatures, log, metrics),
        settling=Settling(store, clock, settings),
    )


def _running(
    settings: Settings,
    clock: Clock,
    store: Store,
    offload: Offload,
    keys: KeyService,
    limiter: Limiter,
    streams: Streams,
    blobs: Blobs,
    holds: Holds,
    node_key: NodeKey,
    work: Work,
    dispatcher: Dispatcher,
    kinds: Mapping[str, Kind],
) -> Running:
    secret, data = node_secret(settings.data_dir), settings.data_dir.resolve()
    box = SecretsBox(settings.secrets_key, secret)
    errands = make_errand_queue(settings)
    provider = _provider(settings, clock, node_key)
    deliveries = Deliveries(store, clock, settings, settings.public_url, box)
    changes = Changes(streams, clock, deliveries)
    files = RunnerFiles(store, clock, settings, blobs, holds, data)
    webhooks = Webhooks(store, clock, settings, changes, files, secret, offload)
    dispatching = Dispatching(store, clock, settings, changes, provider, secret, clock.new_id())
    watching = Watching(store, clock, settings, changes, provider)
    replays, charge = RunnerReplays(secret, REQUEST), KeyCharge(keys, limiter)
    predictions = RunnerPredictions(store, clock, settings, streams, changes, files, replays, charge, offload=offload)
    deliveries.enqueue, webhooks.enqueue = errands.deliver, errands.merge
    changes.ended = dispatching.signal
    changes.queued = partial(_each, dispatching.signal, streams.ring)  # the worker may be another process's
    changes.watched = partial(_each, watching.signal, streams.ring)
    return Running(
        access=RunnerAccess(store, clock, keys),
        provider=provider,
        registration=Registration(
            store, clock, settings, provider, box, RunnerReplays(secret, "model"), changes, task_kinds=kinds.keys()
        ),
        files=files,
        changes=changes,
        webhooks=webhooks,
        predictions=predictions,
        dispatching=dispatching,
        watching=watching,
        deliveries=deliveries,
        hook_secrets=HookSecrets(store, clock, box),
        errands=errands,
        errand_process=Supervisor(settings, min(1, round(settings.errand_threads)), program=ERRANDS),
        cogs=CogWorkers(store, clock, settings, changes, provider, files, predictions, holds, work, dispatcher, kinds),
    )


def _each(*actions: Callable[[], None]) -> None:
    for action in actions:
        action()


def _provider(settings: Settings, clock: Clock, node_key: NodeKey) -> TunnelProvider:
    if settings.runner_tunnel_provider == "cloudflare":
        return CloudflareTunnels(settings, clock)
    return SocketTunnel(settings, clock, node_key.hotkey)
