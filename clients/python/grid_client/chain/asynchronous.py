"""The client for programs with an event loop (asyncio)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

import httpx

from grid_client.chain import identity_calls, subnet_calls
from grid_client.chain.config import AsyncConfig
from grid_client.chain.exceptions import BasePylonException, PylonClosed, PylonMisconfigured
from grid_client.chain.exchange import Answer, Model, Pause, Request, Steps, T, accepted
from grid_client.chain.identity_calls import IdentityCalls
from grid_client.chain.models import CertificateAlgorithm
from grid_client.chain.responses import (
    GenerateCertificateKeypairResponse,
    GetCertificateResponse,
    GetCertificatesResponse,
    GetCommitmentResponse,
    GetCommitmentsResponse,
    GetExtrinsicResponse,
    GetLatestBlockInfoResponse,
    GetNeuronsResponse,
    GetValidatorsResponse,
    GetWeightsStatusResponse,
    SetCommitmentResponse,
    SetWeightsResponse,
)
from grid_client.chain.subnet_calls import Asked, asking, openly
from grid_client.chain.transport import Incoming, failure, sent
from grid_client.chain.types import (
    BlockNumber,
    CommitmentDataBytes,
    CommitmentDataHex,
    ExtrinsicIndex,
    Hotkey,
    NetUid,
    Weight,
)


class AsyncLink:
    """Connections to one service, while they are open. Tasks of one loop may share it."""

    def __init__(
        self,
        config: AsyncConfig,
        transport: httpx.AsyncBaseTransport | None,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._config = config
        self._sleep = sleep
        self._transport = transport
        self._clients: contextlib.AsyncExitStack | None = None

    async def open(self) -> None:
        tls = httpx.create_ssl_context()
        async with contextlib.AsyncExitStack() as clients:
            self._plain = await clients.enter_async_context(httpx.AsyncClient(verify=tls, transport=self._transport))
            # a session's cookies are nothing for calls of open access
            self._session = await clients.enter_async_context(httpx.AsyncClient(verify=tls, transport=self._transport))
            self._clients = clients.pop_all()

    async def close(self) -> None:
        if self._clients is not None:
            await self._clients.aclose()
        self._clients = None

    async def run(self, steps: Steps[T]) -> T:
        """Do what the steps ask for. Raises PylonClosed, PylonRequestException, PylonResponseException."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._done(step)
                except BasePylonException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    async def _done(self, step: Request | Pause) -> Answer:
        if self._clients is None:
            raise PylonClosed("The client is not open.")
        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return Answer(0, b"")
        if not step.is_repeated:
            return await self._exchange(step)
        return await self._config.retry.copy()(self._exchange, step)

    async def _exchange(self, request: Request) -> Answer:
        config = self._config
        client = self._session if request.in_session else self._plain
        try:
            async with client.stream(**sent(config.address, request, config.timeout)) as response:
                incoming = Incoming(response, request, config.timeout)
                async for part in response.aiter_bytes():
                    incoming.take(part)
        except httpx.RequestError as error:
            raise failure(error, request, config.timeout) from error
        except RuntimeError as error:  # httpx's word for a client that was closed meanwhile
            if self._clients is not None:
                raise
            raise PylonClosed("The client was closed.") from error
        return accepted(incoming.answer)


class AsyncOpenAccessApi:
    """What everybody may read who has the token of open access; the subnet is named with each call."""

    def __init__(self, link: AsyncLink, token: str) -> None:
        self._link = link
        self._token = token

    async def get_neurons(self, netuid: NetUid, block_number: BlockNumber) -> GetNeuronsResponse:
        return await self._ask(subnet_calls.neurons(block_number), netuid)

    async def get_latest_neurons(self, netuid: NetUid) -> GetNeuronsResponse:
        return await self._ask(subnet_calls.neurons(), netuid)

    async def get_recent_neurons(self, netuid: NetUid) -> GetNeuronsResponse:
        """From the service's memory: fast, and not the newest."""
        return await self._ask(subnet_calls.neurons("recent"), netuid)

    async def get_validators(self, netuid: NetUid, block_number: BlockNumber) -> GetValidatorsResponse:
        return await self._ask(subnet_calls.validators(block_number), netuid)

    async def get_latest_validators(self, netuid: NetUid) -> GetValidatorsResponse:
        return await self._ask(subnet_calls.validators(), netuid)

    async def get_commitments(self, netuid: NetUid) -> GetCommitmentsResponse:
        return await self._ask(subnet_calls.commitments(), netuid)

    async def get_commitment(self, netuid: NetUid, hotkey: Hotkey) -> GetCommitmentResponse:
        return await self._ask(subnet_calls.commitment(hotkey), netuid)

    async def get_certificates(self, netuid: NetUid) -> GetCertificatesResponse:
        return await self._ask(subnet_calls.certificates(), netuid)

    async def get_certificate(self, netuid: NetUid, hotkey: Hotkey) -> GetCertificateResponse:
        return await self._ask(subnet_calls.certificate(hotkey), netuid)

    async def get_latest_block_info(self) -> GetLatestBlockInfoResponse:
        return await self._ask(subnet_calls.latest_block())

    async def get_extrinsic(self, block_number: BlockNumber, extrinsic_index: ExtrinsicIndex) -> GetExtrinsicResponse:
        return await self._ask(subnet_calls.extrinsic(block_number, extrinsic_index))

    async def _ask(self, asked: Asked[Model], netuid: NetUid | None = None) -> Model:
        return await self._link.run(asking(asked, openly(self._token, netuid)))


class AsyncIdentityApi:
    """What an identity may read and write, on the subnet that it is bound to."""

    def __init__(self, link: AsyncLink, calls: IdentityCalls, open_token: str, clock: Callable[[], float]) -> None:
        self._link = link
        self._calls = calls
        self._open_token = open_token
        self._clock = clock
        self._introducing = asyncio.Lock()

    async def get_neurons(self, block_number: BlockNumber) -> GetNeuronsResponse:
        return await self._ask(subnet_calls.neurons(block_number))

    async def get_latest_neurons(self) -> GetNeuronsResponse:
        return await self._ask(subnet_calls.neurons())

    async def get_recent_neurons(self) -> GetNeuronsResponse:
        """From the service's memory: fast, and not the newest."""
        return await self._ask(subnet_calls.neurons("recent"))

    async def get_validators(self, block_number: BlockNumber) -> GetValidatorsResponse:
        return await self._ask(subnet_calls.validators(block_number))

    async def get_latest_validators(self) -> GetValidatorsResponse:
        return await self._ask(subnet_calls.validators())

    async def get_commitments(self) -> GetCommitmentsResponse:
        return await self._ask(subnet_calls.commitments())

    async def get_commitment(self, hotkey: Hotkey) -> GetCommitmentResponse:
        return await self._ask(subnet_calls.commitment(hotkey))

    async def get_own_commitment(self) -> GetCommitmentResponse:
        return await self._ask(subnet_calls.commitment("self"))

    async def set_commitment(
        self, commitment: CommitmentDataBytes | CommitmentDataHex | bytes | str
    ) -> SetCommitmentResponse:
        """Returns when it is on the chain. Texts are hex digits. Raises ValueError for what is no commitment."""
        return await self._ask(identity_calls.set_commitment(commitment))

    async def get_certificates(self) -> GetCertificatesResponse:
        return await self._ask(subnet_calls.certificates())

    async def get_certificate(self, hotkey: Hotkey) -> GetCertificateResponse:
        return await self._ask(subnet_calls.certificate(hotkey))

    async def get_own_certificate(self) -> GetCertificateResponse:
        return await self._ask(subnet_calls.certificate("self"))

    async def generate_certificate(
        self, algorithm: CertificateAlgorithm = CertificateAlgorithm.ED25519
    ) -> GenerateCertificateKeypairResponse:
        """A fresh pair; the private half is told this once. One more call takes the place of the first."""
        return await self._ask(identity_calls.generate_certificate(algorithm))

    async def put_weights(self, weights: Mapping[Hotkey, Weight]) -> SetWeightsResponse:
        """Returns when they are stored; newer ones take their place. Raises ValueError for what are no weights."""
        return await self._ask(identity_calls.put_weights(dict(weights)))

    async def get_weights_status(self) -> GetWeightsStatusResponse:
        return await self._ask(identity_calls.weights_status())

    async def wait_for_weights(self, timeout: float) -> GetWeightsStatusResponse:
        """The status of the newest weights once nothing more will be tried, however they ended.

        Raises PylonTimeoutException after `timeout` seconds, PylonNotFound where there are no weights.
        """
        return await self._link.run(self._calls.wait_for_weights(timeout, self._clock))

    async def get_latest_block_info(self) -> GetLatestBlockInfoResponse:
        return await self._link.run(asking(subnet_calls.latest_block(), openly(self._open_token)))

    async def get_extrinsic(self, block_number: BlockNumber, extrinsic_index: ExtrinsicIndex) -> GetExtrinsicResponse:
        asked = subnet_calls.extrinsic(block_number, extrinsic_index)
        return await self._link.run(asking(asked, openly(self._open_token)))

    async def _ask(self, asked: Asked[Model]) -> Model:
        return await self._run(self._calls.ask(asked))

    async def _run(self, steps: Steps[T]) -> T:
        if self._calls.standing is None:
            async with self._introducing:
                await self._link.run(self._calls.introduce())
        return await self._link.run(steps)


class AsyncPylonClient:
    """Reads and writes of a chain through one service. Tasks of one loop may share it.

    Raises PylonClosed for calls outside `open()` and `close()`, or the `async with` block.
    `transport` is httpx's, for tests; a wait for weights goes by `clock` (seconds that only go forward) and `sleep`.
    """

    def __init__(
        self,
        config: AsyncConfig,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.config = config
        self.is_open = False
        self._link = AsyncLink(config, transport, sleep)
        self._open_access: AsyncOpenAccessApi | None = None
        self._identity: AsyncIdentityApi | None = None
        open_token = config.open_access_token or ""
        if config.open_access_token is not None:
            self._open_access = AsyncOpenAccessApi(self._link, open_token)
        if config.identity_name and config.identity_token:
            calls = IdentityCalls(config.identity_name, config.identity_token)
            self._identity = AsyncIdentityApi(self._link, calls, open_token, clock)

    @property
    def open_access(self) -> AsyncOpenAccessApi:
        """Raises PylonMisconfigured where the configuration has no token of open access, not even an empty one."""
        if self._open_access is None:
            raise PylonMisconfigured("No open access: the configuration has no open_access_token.")
        return self._open_access

    @property
    def identity(self) -> AsyncIdentityApi:
        """Raises PylonMisconfigured where the configuration has none."""
        if self._identity is None:
            raise PylonMisconfigured("No identity: the configuration has no identity_name and identity_token.")
        return self._identity

    @property
    def v1(self) -> Self:
        """The same: there is one version."""
        return self

    async def open(self) -> None:
        if self.is_open:
            raise ValueError("The client is already open.")
        await self._link.open()
        self.is_open = True

    async def close(self) -> None:
        if not self.is_open:
            raise ValueError("The client is already closed.")
        self.is_open = False
        await self._link.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
