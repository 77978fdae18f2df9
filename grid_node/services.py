"""The container of the node's services: `app.py` fills it, the faces and the command line read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import current_app

from grid_node.adapters.chain import NodeMetagraph
from grid_node.adapters.cog_worker import CogWorkers
from grid_node.adapters.generation import WorkerAuthentication
from grid_node.adapters.hosting import ModelAccess
from grid_node.adapters.predictions import HotkeyRegistry, HotkeySignatures, MinerAuthentication, NodeSigner
from grid_node.adapters.runners import RunnerAccess
from grid_node.blobs.holds import Holds
from grid_node.blobs.store import Blobs
from grid_node.census import Census
from grid_node.chain.access import ChainAccess
from grid_node.chain.auto import AutoWeights
from grid_node.chain.link import ChainLink
from grid_node.chain.metagraph import ChainMetagraph
from grid_node.chain.metrics import ChainMetrics
from grid_node.chain.proposals import Proposals
from grid_node.chain.pylon import SUBTENSOR, PylonSettings
from grid_node.chain.reads import ChainReads
from grid_node.chain.weights import Weights
from grid_node.chain.writes import ChainWrites
from grid_node.clock import Clock
from grid_node.compute.checks import Checks
from grid_node.compute.client import ComputeProcesses
from grid_node.database import Offload, Store
from grid_node.generation.dispatch import Dispatcher
from grid_node.generation.leases import Kind, Leases
from grid_node.generation.lifecycle import Lifecycle
from grid_node.generation.tasks import Tasks
from grid_node.generation.tending import Tending
from grid_node.generation.work import Work
from grid_node.hosting.datasets import Datasets
from grid_node.hosting.encrypted import Encrypted
from grid_node.hosting.inference import Inference
from grid_node.hosting.reading import Deleting, Reading
from grid_node.hosting.scrub import Scrub
from grid_node.hosting.secure_linear import Secure
from grid_node.hosting.serving import Serving
from grid_node.identity.epistula import Epistula
from grid_node.identity.node_key import NodeKey
from grid_node.identity.service import KeyService
from grid_node.jobs.queue import ErrandQueue, JobQueue
from grid_node.jobs.scoring import ScoringJobs
from grid_node.jobs.supervisor import Supervisor
from grid_node.metrics import Metrics
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
from grid_node.runners.watching import Watching
from grid_node.runners.webhooks import Webhooks
from grid_node.settings import Settings
from grid_node.streams.bells import BellTower
from grid_node.streams.service import Streams
from grid_node.uploads.service import UploadService


@dataclass(frozen=True)
class Hosting:
    """Hosted models and datasets."""

    access: ModelAccess
    reading: Reading
    serving: Serving
    deleting: Deleting
    inference: Inference
    encrypted: Encrypted
    secure: Secure
    datasets: Datasets
    checks: Checks
    compute: ComputeProcesses
    scrub: Scrub
    offload: Offload


@dataclass(frozen=True)
class Predicting:
    """Games, predictions of miners and their receipts."""

    registry: HotkeyRegistry
    signatures: HotkeySignatures
    signer: NodeSigner
    authentication: MinerAuthentication
    log: UpdateLog
    games: Games
    predictions: Predictions
    settling: Settling


@dataclass(frozen=True)
class Running:
    """Models that run elsewhere, and the predictions on them."""

    access: RunnerAccess
    provider: TunnelProvider
    registration: Registration
    files: RunnerFiles
    changes: Changes
    webhooks: Webhooks
    predictions: RunnerPredictions
    dispatching: Dispatching
    watching: Watching
    deliveries: Deliveries
    hook_secrets: HookSecrets
    errands: ErrandQueue
    errand_process: Supervisor
    cogs: CogWorkers


@dataclass(frozen=True)
class Chaining:
    """A subnet of a chain: what is read of it, who may ask, and what is written."""

    pylon: PylonSettings
    backend: str
    """`local` or `subtensor`."""
    access: ChainAccess
    link: ChainLink
    reads: ChainReads
    metagraph: ChainMetagraph
    weights: Weights
    writes: ChainWrites
    proposals: Proposals
    auto: AutoWeights
    metrics: ChainMetrics

    @property
    def is_busy(self) -> bool:
        """Whether there is a chain to look after before anybody asks for it."""
        return self.backend == SUBTENSOR or bool(self.pylon.identities)


@dataclass
class Services:
    """Everything a face may call."""

    settings: Settings
    clock: Clock
    store: Store
    keys: KeyService
    limiter: Any
    metagraph: NodeMetagraph
    node_key: NodeKey
    streams: Streams
    bells: BellTower
    blobs: Blobs
    holds: Holds
    uploads: UploadService
    kinds: Mapping[str, Kind]
    lifecycle: Lifecycle
    tasks: Tasks
    leases: Leases
    work: Work
    dispatcher: Dispatcher
    tending: Tending
    scoring_jobs: ScoringJobs
    job_queue: JobQueue
    supervisor: Supervisor
    metrics: Metrics
    census: Census
    epistula: Epistula
    authentication: WorkerAuthentication
    hosting: Hosting
    predicting: Predicting
    running: Running
    chain: Chaining
    draining: bool = False

    def check_key(self, key_id: str, scope: str) -> None:
        """Raises InvalidKey or Forbidden unless the key is in force now and has the scope."""
        self.store.read(lambda tx: self.keys.require(tx, key_id, scope, self.clock.now()))


def services() -> Services:
    """The services of the current Flask app."""
    found: Services = current_app.extensions["grid"]
    return found
