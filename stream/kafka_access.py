"""From the settings of Kafka to the options of each client library: addresses, TLS, SASL; and what a refusal means.

Certificates are always checked, the host's name included; no setting turns that off.
"""

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import errors as aiokafka_errors
from aiokafka.conn import create_conn
from aiokafka.helpers import create_ssl_context
from kafka import errors as kafka_errors

from schemas.config import Kafka
from schemas.errors import KeenstreamError, Unavailable, UsageError
from schemas.secret import secret_of

Broker = Kafka | str  # the settings, or only the address of a broker that asks for nothing
HOW_TO_START = "start it with `keenstream stack up`, or set KEENSTREAM_KAFKA_BOOTSTRAP"
ASK_SECONDS = 5


def settings_of(broker: Broker) -> Kafka:
    return Kafka(bootstrap=broker) if isinstance(broker, str) else broker


def addresses(broker: Broker) -> list[str]:
    """host:port of each."""
    return [address.strip() for address in settings_of(broker).bootstrap.split(",")]


def aiokafka_options(broker: Broker) -> dict[str, Any]:
    """Of AIOKafkaProducer and AIOKafkaConsumer. Raises UsageError when a file or a secret is not as it must be."""
    return {"bootstrap_servers": addresses(broker), **_security(settings_of(broker))}


kafka_python_options = aiokafka_options  # KafkaConsumer, KafkaProducer and KafkaAdminClient name them alike


def faust_credentials(broker: Broker) -> Any:
    """Faust's `broker_credentials`, or None. Raises as `aiokafka_options`."""
    from faust.auth import SASLCredentials, SSLCredentials  # heavy, and only workers need it

    options = _security(settings_of(broker))
    if "sasl_mechanism" in options:
        return SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=options.get("ssl_context"),
        )
    return SSLCredentials(options["ssl_context"]) if "ssl_context" in options else None


def _security(kafka: Kafka) -> dict[str, Any]:
    """What the two libraries name alike."""
    options: dict[str, Any] = {"security_protocol": kafka.security_protocol}
    if kafka.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        password = secret_of(kafka.sasl_password, kafka.sasl_password_file, "kafka.sasl_password")
        if not kafka.sasl_username or not password:
            raise UsageError(
                f"kafka.security_protocol is {kafka.security_protocol}: set kafka.sasl_username and the password, in "
                "KEENSTREAM_KAFKA_SASL_PASSWORD or in the file that kafka.sasl_password_file names"
            )
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = password
    elif kafka.sasl_username or kafka.sasl_password or kafka.sasl_password_file:
        # a password that is set and not used means that the traffic is open against the operator's will
        raise UsageError(
            f"kafka.sasl_* is set and kafka.security_protocol is {kafka.security_protocol}: set it to SASL_SSL"
        )
    return options


def _ssl_context(kafka: Kafka) -> ssl.SSLContext:
    if bool(kafka.ssl_certificate_file) != bool(kafka.ssl_key_file):
        raise UsageError("set kafka.ssl_certificate_file and kafka.ssl_key_file together")
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=kafka.ssl_ca_file or None,
            certfile=kafka.ssl_certificate_file or None,
            keyfile=kafka.ssl_key_file or None,
        )
    except OSError as error:
        files = ", ".join(filter(None, (kafka.ssl_ca_file, kafka.ssl_certificate_file, kafka.ssl_key_file)))
        raise UsageError(f"kafka.ssl_*_file: {files}: {error.strerror or error}; PEM files are wanted") from error
    return context


def check_credentials(broker: Broker) -> None:
    """Raises UsageError when the broker refuses us. kafka-python would try until its timeout and not say why."""
    if settings_of(broker).security_protocol == "PLAINTEXT":
        return
    with ThreadPoolExecutor(1) as apart:  # the caller may have a loop of its own
        told = apart.submit(asyncio.run, ask_why(broker)).result()
    if told:
        raise UsageError(told)


def failure(broker: Broker, error: BaseException) -> KeenstreamError:
    """A client's failure as ours: UsageError where the settings are wrong, otherwise Unavailable."""
    if told := refusal(broker, error):
        return UsageError(told)
    return Unavailable(f"Kafka at {settings_of(broker).bootstrap} does not answer ({error!r}): {HOW_TO_START}")


def refusal(broker: Broker, error: BaseException) -> str:
    """Why the broker or we refuse the connection, and what to set; empty when it is something else."""
    kafka = settings_of(broker)
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return (
                f"no TLS with Kafka at {kafka.bootstrap} ({cause.reason or cause}): check kafka.ssl_ca_file, "
                "kafka.security_protocol, and that the broker's certificate names this host"
            )
        if isinstance(cause, _REFUSALS):
            return (
                f"Kafka at {kafka.bootstrap} refuses the user {kafka.sasl_username!r} by {kafka.sasl_mechanism}: check "
                "kafka.sasl_username, kafka.sasl_mechanism and the password"
            )
    return ""


async def ask_why(broker: Broker) -> str:
    """`refusal` by connections of its own: the clients hide the reason why they reached no broker."""
    options = aiokafka_options(broker)
    if options["security_protocol"] == "PLAINTEXT":
        return ""
    for address in options.pop("bootstrap_servers"):
        host, _, port = address.rpartition(":")
        try:
            connection = await create_conn(host, int(port), request_timeout_ms=ASK_SECONDS * 1000, **options)
        except (aiokafka_errors.KafkaError, OSError, TimeoutError) as error:
            if told := refusal(broker, error):
                return told
        else:
            connection.close()
            return ""
    return ""


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


_REFUSALS = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    aiokafka_errors.AuthenticationFailedError,
    aiokafka_errors.SaslAuthenticationFailed,
    aiokafka_errors.UnsupportedSaslMechanismError,
)
