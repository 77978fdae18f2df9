"""What the methods of the client return."""

from __future__ import annotations

from pydantic import BaseModel, RootModel

from grid_client.chain.models import (
    BlockInfo,
    Commitment,
    Extrinsic,
    NeuronCertificate,
    NeuronCertificateKeypair,
    SubnetCommitments,
    SubnetNeurons,
    SubnetValidators,
    WeightsStatus,
)
from grid_client.chain.types import Hotkey, IdentityName, NetUid


class PylonResponse(BaseModel):
    """Base of all but one."""


class LoginResponse(PylonResponse):
    """Base of answers to a login."""


class OpenAccessLoginResponse(LoginResponse):
    """Nothing: open access has no login."""


class IdentityLoginResponse(LoginResponse):
    netuid: NetUid
    identity_name: IdentityName


class GetIdentitiesResponse(PylonResponse):
    identities: dict[IdentityName, NetUid]


class GetNeuronsResponse(PylonResponse, SubnetNeurons):
    """Block and neurons."""


class GetValidatorsResponse(PylonResponse, SubnetValidators):
    """Block and validators."""


class GetCommitmentsResponse(PylonResponse, SubnetCommitments):
    """Block and commitments."""


class GetCommitmentResponse(PylonResponse, Commitment):
    """One commitment."""


class SetCommitmentResponse(PylonResponse):
    """The commitment is on the chain."""


class GetCertificateResponse(PylonResponse, NeuronCertificate):
    """One certificate."""


class GetCertificatesResponse(RootModel[dict[Hotkey, NeuronCertificate]]):
    """Certificates by hotkey, in `certificates`."""

    @property
    def certificates(self) -> dict[Hotkey, NeuronCertificate]:
        return self.root


class GenerateCertificateKeypairResponse(PylonResponse, NeuronCertificateKeypair):
    """A fresh pair, whose public half is on the chain."""


class GetLatestBlockInfoResponse(PylonResponse, BlockInfo):
    """Number, hash and time of the head."""


class GetExtrinsicResponse(PylonResponse, Extrinsic):
    """One extrinsic."""


class SetWeightsResponse(PylonResponse):
    """The weights are stored and will be set. What a service does not tell is None."""

    job_id: str | None = None
    count: int | None = None
    dropped: list[Hotkey] | None = None


class GetWeightsStatusResponse(PylonResponse, WeightsStatus):
    """What became of the newest weights."""
