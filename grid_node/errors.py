"""One tree of errors. Each class is one row of the error table: a stable code, an HTTP status, a text.

A face turns an error into an answer with `body()`; the same body is a Socket.IO ack and an HTTP answer.
Extra keyword arguments become members of that body (`retry_after`, `fields`, `limit`, ...).
"""

from typing import Any, ClassVar


class GridError(Exception):
    """The root. Raised itself only for a fault of ours that reached a face."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    text: ClassVar[str] = "Internal Server Error"

    def __init__(self, text: str | None = None, **data: Any) -> None:
        self.message = text or type(self).text
        self.data = data
        super().__init__(self.message)

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the same request may succeed, if that is known: whole ones, but for predictions."""
        return self.data.get("retry_after")

    def body(self) -> dict[str, Any]:
        return {
            "success": False,
            "error": self.message,
            "code": self.code,
            "status": self.status,
            **self.data,
        }


def error_table() -> dict[str, type[GridError]]:
    """Every error class by its code, for the reference and its test."""
    table: dict[str, type[GridError]] = {}
    pending = [GridError]
    while pending:
        error = pending.pop()
        table.setdefault(error.code, error)
        pending.extend(error.__subclasses__())
    return dict(sorted(table.items()))


# --- 400: the request itself ---------------------------------------------------------------------------


class InvalidPayload(GridError):
    """`fields` names what is wrong, member by member."""

    code, status, text = "invalid_payload", 400, "Invalid payload format"


class BadQuery(InvalidPayload):
    """A dataset search that is none. Its body is the empty object: the first clients know no other."""

    def body(self) -> dict[str, Any]:
        return {}


class InvalidJson(GridError):
    code, status, text = "invalid_json", 400, "Invalid JSON"


class InvalidMessage(GridError):
    code, status, text = "invalid_message", 400, "Invalid message"


class InvalidHotkey(GridError):
    code, status, text = "invalid_hotkey", 400, "Invalid hotkey"


class BodyIncomplete(GridError):
    code, status, text = "body_incomplete", 400, "The body ended before its announced length"


class MissingData(GridError):
    """`fields` names what is missing."""

    code, status, text = "missing_data", 400, "Missing prediction data"


# --- 401, 403: who is asking -----------------------------------------------------------------------------


class MissingKey(GridError):
    code, status, text = "missing_key", 401, "API key is missing."


class InvalidKey(GridError):
    code, status, text = "invalid_key", 401, "Invalid API Key"


class NotAuthenticated(GridError):
    code, status, text = "not_authenticated", 401, "Authenticate first"


class MissingAuth(GridError):
    code, status, text = "missing_auth", 401, "Authentication is missing"


class Unauthorized(GridError):
    code, status, text = "unauthorized", 401, "An API key is needed"


class AuthFailed(GridError):
    code, status, text = "auth_failed", 401, "Invalid authentication"


class BadSignature(GridError):
    code, status, text = "bad_signature", 401, "Invalid signature"


class WrongReceiver(GridError):
    code, status, text = "wrong_receiver", 401, "The message is addressed to another node"


class StaleTimestamp(GridError):
    """`server_time` carries the node's clock."""

    code, status, text = "stale_timestamp", 401, "Timestamp is outside the accepted window"


class ReplayedRequest(GridError):
    code, status, text = "replayed_request", 401, "This request was used before"


class Forbidden(GridError):
    code, status, text = "forbidden", 403, "The API key lacks the scope for this"


class DownloadNotAllowed(GridError):
    code, status, text = "download_not_allowed", 403, "You're not allowed to download this model."


class InferenceNotAllowed(GridError):
    code, status, text = "inference_not_allowed", 403, "You're not allowed to run inference on this model."

    def __init__(self, text: str | None = None, **data: Any) -> None:
        super().__init__(text, not_allowed=True, **data)


class QuotaExceeded(GridError):
    """`used` and `limit`, in bytes or in models as the text says."""

    code, status, text = "quota_exceeded", 403, "No quota left"


class SharePeerNotAllowed(GridError):
    code, status, text = "share_peer_not_allowed", 403, "This node places shares at the operator's share_peers only"


class NotRegistered(GridError):
    code, status, text = "not_registered", 403, "Unregistered hotkey"


class Blacklisted(GridError):
    code, status, text = "blacklisted", 403, "Hotkey is blacklisted"


class SenderMismatch(GridError):
    code, status, text = "sender_mismatch", 403, "The sender is not the authenticated hotkey"


class UidMismatch(GridError):
    code, status, text = "uid_mismatch", 403, "miner_uid is not the uid of this hotkey"


# --- 404 to 422: what it is about ------------------------------------------------------------------------


class NotFound(GridError):
    code, status, text = "not_found", 404, "Not found"


class UnknownEvent(GridError):
    code, status, text = "unknown_event", 404, "Unknown event"


class ModelNotFound(GridError):
    code, status, text = "model_not_found", 404, "Model not found."


class ModelIdNotFound(ModelNotFound):
    """The same, in the words of the encrypted search."""

    text = "Model ID not found!"


class DatasetNotFound(GridError):
    code, status, text = "dataset_not_found", 404, "Dataset not found."


class TaskNotFound(GridError):
    code, status, text = "task_not_found", 404, "Task not found."


class PredictionNotFound(GridError):
    code, status, text = "prediction_not_found", 404, "Prediction not found"


class ResultNotFound(GridError):
    code, status, text = "result_not_found", 404, "Result not found."


class LeaseNotFound(GridError):
    code, status, text = "lease_not_found", 404, "Lease not found."


class UploadNotFound(GridError):
    code, status, text = "upload_not_found", 404, "Upload not found."


class MethodNotAllowed(GridError):
    code, status, text = "method_not_allowed", 405, "Method not allowed"


class FormatNotAvailable(GridError):
    code, status, text = "format_not_available", 406, "This format is not available for the result"


class IdempotencyConflict(GridError):
    code, status, text = "idempotency_conflict", 409, "The idempotency key was used with another request"


class ModelExists(GridError):
    """`message` carries the text too: that is where the first clients looked for it."""

    code, status, text = "model_exists", 409, "Model id already exists."

    def __init__(self, text: str | None = None, **data: Any) -> None:
        super().__init__(text, message=text or self.text, **data)


class DatasetExists(ModelExists):
    code, text = "dataset_exists", "Dataset id already exists."


class VersionConflict(GridError):
    """`version` is the one that comes next."""

    code, status, text = "version_conflict", 409, "The version must be the next one"


class DuplicatePrediction(GridError):
    code, status, text = "duplicate_prediction", 409, "Prediction already exists in database"


class GameLocked(GridError):
    code, status, text = "game_locked", 409, "Predictions were made on this game: its teams stay"


class OutcomeConflict(GridError):
    code, status, text = "outcome_conflict", 409, "The game has another final outcome"


class SeqAhead(GridError):
    """`last_seq` is the newest there is."""

    code, status, text = "seq_ahead", 409, "after_seq is beyond the last update"


class AlreadySubmitted(GridError):
    code, status, text = "already_submitted", 409, "Another result was submitted for this lease"


class AlreadyAuthenticated(GridError):
    code, status, text = "already_authenticated", 409, "Already authenticated"


class OffsetMismatch(GridError):
    code, status, text = "offset_mismatch", 409, "Upload-Offset is not the current offset"


class UploadBusy(GridError):
    code, status, text = "upload_busy", 409, "Another request writes to this upload"


class ResultExpired(GridError):
    code, status, text = "result_expired", 410, "The asset is past its time"


class LeaseClosed(GridError):
    """`reason` says why the work is pointless."""

    code, status, text = "lease_closed", 410, "The lease is closed"


class UploadExpired(GridError):
    code, status, text = "upload_expired", 410, "The upload is past its time"


class LengthRequired(GridError):
    code, status, text = "length_required", 411, "Content-Length is required"


class TusVersion(GridError):
    code, status, text = "tus_version", 412, "Tus-Resumable must be 1.0.0"


class PromptTooLong(GridError):
    code, status, text = "prompt_too_long", 413, "The prompt is too long"


class MessageTooLarge(GridError):
    """`limit` in bytes, `upload_url` where a larger one may go."""

    code, status, text = "message_too_large", 413, "Message too large"


class PayloadTooLarge(MessageTooLarge):
    """`limit` in bytes, or in messages of one batch."""

    code = "payload_too_large"


class AssetTooLarge(GridError):
    code, status, text = "asset_too_large", 413, "The asset is too large"


class ModelTooLarge(GridError):
    """`size` and `limit` in bytes, `download_url` where the bytes are."""

    code, status, text = "model_too_large", 413, "The model is too large for one message"


class InferenceTooLarge(GridError):
    """`limit` in bytes, after decompression."""

    code, status, text = "inference_too_large", 413, "The inference request is too large"


class UploadTooLarge(GridError):
    code, status, text = "upload_too_large", 413, "The upload is too large"


class UnsupportedMediaType(GridError):
    code, status, text = "unsupported_media_type", 415, "Unsupported content type"


class RangeNotSatisfiable(GridError):
    code, status, text = "range_not_satisfiable", 416, "Range not satisfiable"


class Sha256Mismatch(GridError):
    code, status, text = "sha256_mismatch", 422, "sha256 differs from the bytes"


class InvalidModel(GridError):
    """`reason` says what is wrong with the bytes."""

    code, status, text = "invalid_model", 422, "The bytes are not a model of this format"


class InvalidGame(GridError):
    """`fields` names what is wrong, member by member."""

    code, status, text = "invalid_game", 422, "Invalid game"


class ModelFormatNotAvailable(FormatNotAvailable):
    status, text = 422, "This node does not take models of this format"


class FormatNotRunnable(GridError):
    code, status, text = "format_not_runnable", 422, "This node cannot run such a model"


class InferenceFailed(GridError):
    code, status, text = "inference_failed", 422, "The model failed on this input"


class NonFiniteOutput(GridError):
    code, status, text = "non_finite_output", 422, "The result holds NaN or infinity, which JSON has no word for"


class ValueOutOfRange(GridError):
    """`tensor` names the one that cannot be shared."""

    code, status, text = "value_out_of_range", 422, "A value is too large, infinite or NaN for this precision"


class UpgradeRequired(GridError):
    code, status, text = "upgrade_required", 426, "This address speaks WebSocket"


class ChecksumMismatch(GridError):
    """Status 460 is the tus 1.0.0 checksum extension's own."""

    code, status, text = "checksum_mismatch", 460, "Upload-Checksum differs from the bytes"


# --- 429, 5xx: not now -----------------------------------------------------------------------------------


class RateLimited(GridError):
    """`retry_after` in seconds, whole ones but for predictions; null when the key may never create."""

    code, status, text = "rate_limited", 429, "Too Many Requests"


class TooManyActiveTasks(GridError):
    code, status, text = "too_many_active_tasks", 429, "Too many unfinished tasks"


class TooManyBadKeys(GridError):
    code, status, text = "too_many_bad_keys", 429, "Too many wrong API keys from this address"


class TooManyPulls(GridError):
    code, status, text = "too_many_pulls", 429, "Too many pulls with no room for work"


class TooManyInFlight(GridError):
    code, status, text = "too_many_in_flight", 429, "Too many unanswered requests on this connection"


class QueueFull(GridError):
    code, status, text = "queue_full", 503, "The queue is full"


class PublicApiDisabled(GridError):
    code, status, text = "public_api_disabled", 503, "The public API is switched off"


class ServerFull(GridError):
    code, status, text = "server_full", 503, "Too many connections"


class WebsocketDisabled(GridError):
    code, status, text = "websocket_disabled", 503, "Sockets are switched off: use HTTP"


class Overloaded(GridError):
    code, status, text = "overloaded", 503, "Too many predictions wait for their commit"


class CommitTimeout(GridError):
    """Whether the prediction was taken is not known; the same id is safe to send again."""

    code, status, text = "commit_timeout", 503, "The commit takes too long"


class StorageUnavailable(GridError):
    code, status, text = "storage_unavailable", 503, "The prediction could not be stored"


class RegistrationUnknown(GridError):
    code, status, text = "registration_unknown", 503, "The registration of this hotkey is not known now"


class StoreUnavailable(GridError):
    code, status, text = "store_unavailable", 503, "The database is not available"


class ChainUnavailable(GridError):
    code, status, text = "chain_unavailable", 503, "Chain data is not available"


class ShuttingDown(GridError):
    code, status, text = "shutting_down", 503, "Server Shutdown"


class ModelNotReady(GridError):
    code, status, text = "model_not_ready", 503, "The model is not ready"


class ModelCorrupt(GridError):
    code, status, text = "model_corrupt", 503, "The stored bytes are damaged"


class ComputeUnavailable(GridError):
    code, status, text = "compute_unavailable", 503, "No process to run models now"


class InferenceTimeout(GridError):
    code, status, text = "inference_timeout", 504, "The inference took too long"


class SharePlacementFailed(GridError):
    """`worker` names the holder that failed."""

    code, status, text = "share_placement_failed", 504, "The shares could not be placed; nothing is left of them"


class StoreFull(GridError):
    code, status, text = "store_full", 507, "No room left to store this"


# --- runners: models of others, behind tunnels ---------------------------------------------------------------


class RunnerKeyInvalid(InvalidKey):
    """The same, in the words of the runners' API."""

    text = "API key is not valid."


class WrongScope(GridError):
    code, status, text = "wrong_scope", 403, "API key lacks the scope runner."


class RunnerInvalidJson(InvalidJson):
    """The same, in the words of the runners' API."""

    text = "Body is not valid JSON."


class JsonRequired(UnsupportedMediaType):
    text = "Content-Type must be application/json."


class InvalidPrefer(GridError):
    code, status, text = "invalid_prefer", 400, "Prefer: wait must be 1 to 60 seconds."


class BadCursor(GridError):
    code, status, text = "bad_cursor", 400, "Cursor is not valid."


class InvalidToken(GridError):
    code, status, text = "invalid_token", 401, "Webhook token is not valid."


class CallNotAllowed(GridError):
    code, status, text = "call_not_allowed", 403, "Call not allowed."


class RunnerPredictionNotFound(PredictionNotFound):
    """The same, in the words of the runners' API."""

    text = "Prediction not found."


class FileNotFound(GridError):
    code, status, text = "file_not_found", 404, "File not found."


class DeliveryNotFound(GridError):
    code, status, text = "delivery_not_found", 404, "Delivery not found."


class UploadTimeout(GridError):
    code, status, text = "upload_timeout", 408, "Upload stalled."


class ModelNameTaken(GridError):
    code, status, text = "model_name_taken", 409, "Model name is already taken."


class RunnerIdempotencyConflict(IdempotencyConflict):
    """The same, in the words of the runners' API."""

    text = "Idempotency-Key was used with another body."


class ModelBusy(GridError):
    code, status, text = "model_busy", 409, "The model has active predictions."


class PredictionActive(GridError):
    code, status, text = "prediction_active", 409, "The prediction is still active."


class PredictionClosed(GridError):
    code, status, text = "prediction_closed", 409, "The prediction is closed."


class PredictionMismatch(GridError):
    code, status, text = "prediction_mismatch", 409, "Token belongs to another prediction."


class Gone(GridError):
    """`use` names what took its place."""

    code, status, text = "gone", 410, "This endpoint was replaced."


class FileExpired(GridError):
    code, status, text = "file_expired", 410, "File has expired."


class ModelChanged(VersionConflict):
    status, text = 412, "The model was changed meanwhile."


class FileTooLarge(GridError):
    """`limit` in bytes."""

    code, status, text = "file_too_large", 413, "File is too large."

    def __init__(self, text: str | None = None, **data: Any) -> None:
        super().__init__(text or f"File is larger than {data['limit']} bytes.", **data)


class BodyTooLarge(GridError):
    """`limit` in bytes."""

    code, status, text = "body_too_large", 413, "Body is too large."

    def __init__(self, text: str | None = None, **data: Any) -> None:
        super().__init__(text or f"Body is larger than {data['limit']} bytes.", **data)


class UploadEndedEarly(BodyIncomplete):
    """The same, in the words of the runners' API."""

    text = "Body ended early."


class UploadQuotaExceeded(QuotaExceeded):
    """`used` and `limit`, in bytes or in files."""

    status, text = 413, "Upload quota exceeded."


class InvalidSignature(GridError):
    """`fields` names what is wrong in the signature of a model, by its path."""

    code, status, text = "invalid_signature", 422, "Signature is not valid."


class InvalidInput(GridError):
    """`fields` names what is wrong, input by input."""

    code, status, text = "invalid_input", 422, "Input validation failed"


class InvalidWebhook(GridError):
    code, status, text = "invalid_webhook", 422, "Webhook body is not valid."


class UnknownVersion(GridError):
    code, status, text = "unknown_version", 422, "Invalid version or not permitted."


class WebhookNotAllowed(GridError):
    code, status, text = "webhook_not_allowed", 422, "Webhook URL is not allowed."


class ModelLimit(GridError):
    code, status, text = "model_limit", 429, "Too many models."


class RunnerQueueFull(QueueFull):
    status, text = 429, "The model's queue is full."


class TooManyRunners(GridError):
    """`limit` is how many agents of one model may be connected."""

    code, status, text = "too_many_runners", 429, "Too many runners."


class RunnerUnreachable(GridError):
    code, status, text = "runner_unreachable", 502, "Worker is not reachable."


class ReplyTooLarge(GridError):
    code, status, text = "reply_too_large", 502, "Worker's reply is too large."


class TunnelProviderFailed(GridError):
    code, status, text = "tunnel_provider_failed", 502, "The tunnel could not be created."


class TryAgain(GridError):
    """`retry_after` in seconds."""

    code, status, text = "try_again", 503, "Temporarily unavailable."


class RunnerOffline(GridError):
    code, status, text = "runner_offline", 503, "Runner is offline."


class RunnerGone(RunnerOffline):
    """The same, where nothing has been sent: the call may be made elsewhere."""


class RunnerTimeout(GridError):
    code, status, text = "runner_timeout", 504, "Runner did not answer in time."


class StorageFull(GridError):
    code, status, text = "storage_full", 507, "Storage is full."


class RunnerMethodNotAllowed(MethodNotAllowed):
    """The same, in the words of the runners' API."""

    text = "Method not allowed."


# --- chain: the words and the body of Pylon's API, on every face ------------------------------------------------


class ChainError(GridError):
    """The root of these. Its body is Pylon's: `status_code`, `detail`, and `extra` where fields were wrong."""

    code = "chain_error"

    def body(self) -> dict[str, Any]:
        body = {"status_code": self.status, "detail": self.message}
        return body | {"extra": self.data["extra"]} if "extra" in self.data else body


class ChainInvalid(ChainError):
    """`extra` lists what is wrong: `[{"message", "key"}]`, keys dotted. The text is a face's: it names the route."""

    code, status, text = "chain_invalid", 400, "Validation failed"


class ChainMalformed(ChainError):
    """The body is no JSON, or a header has a value that it cannot have."""

    code, status, text = "chain_malformed", 400, "JSON is malformed"


class ChainLoginNeeded(ChainError):
    code, status, text = "chain_login_needed", 401, "Authorization header is required"


class ChainTokenMalformed(ChainError):
    code, status = "chain_token_malformed", 401
    text = "Invalid Authorization header format. Expected: Bearer <token>"


class ChainSessionEnded(ChainError):
    code, status, text = "chain_session_ended", 401, "Session is invalid or expired"


class ChainTokenInvalid(ChainError):
    code, status, text = "chain_token_invalid", 403, "Invalid authorization token"


class ChainNotMeasured(ChainError):
    """What `/metrics` refuses, whatever the cause."""

    code, status, text = "chain_not_measured", 403, "Metrics endpoint is not configured"


class ChainIdentityBound(ChainError):
    """Pylon's 308 without `Location`: the identity is another subnet's."""

    code, status, text = "chain_identity_bound", 308, "Identity is bound to another subnet"


class ChainNotFound(ChainError):
    """Subnet, block, extrinsic, commitment, certificate, identity or job: the text says which."""

    code, status, text = "chain_not_found", 404, "Not Found"


class ChainMethodNotAllowed(ChainError):
    code, status, text = "chain_method_not_allowed", 405, "Method Not Allowed"


class ChainBodyTooLarge(ChainError):
    code, status, text = "chain_body_too_large", 413, "Request body is too large."


class ChainAuthLimited(ChainError):
    code, status, text = "chain_auth_limited", 429, "Too many failed authentications"


class ChainFault(ChainError):
    """A fault of ours, told without detail."""

    code, status, text = "chain_fault", 500, "Internal Server Error"


class ChainUnreachable(ChainError):
    """The chain node, or the process that talks to it, gave no good answer. The text says why."""

    code, status, text = "chain_unreachable", 502, "Chain node is unreachable"


class ChainWriteFailed(ChainError):
    """The last attempt of a commitment or certificate failed; the text names its error."""

    code, status, text = "chain_write_failed", 502, "Failed to write to the chain"


class ChainQueueFull(ChainError):
    code, status, text = "chain_queue_full", 503, "Chain queue is full."

    def __init__(self, text: str | None = None, **data: Any) -> None:
        super().__init__(text, **{"retry_after": 1, **data})


class ChainNotRecent(ChainError):
    """`recent` has nothing that is fresh enough."""

    code, status, text = "chain_not_recent", 503, "No recent data available"


class ChainTimeout(ChainError):
    code, status, text = "chain_timeout", 504, "Request timed out"
