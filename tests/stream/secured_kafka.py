"""A real broker with SASL_SSL: its certificates, its users, and the settings of who may use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import trustme
from cryptography.hazmat.primitives import serialization

from keenstream.stack.kafka import NodeSettings, ensure_jars, kafka_command, probe_kafka
from keenstream.stack.ports import LOCAL, free_port
from keenstream.stack.process import end, start, wait_ready
from schemas.config import Kafka
from schemas.secret import Secret

USER, PASSWORD = "keenstream", "s3cret-of-the-test"

# clients of the tests use SASL_SSL and SSL (with a certificate of their own); the node itself uses the open listener
_PROPERTIES = """\
listeners=PLAINTEXT://{local}:{open},SASL_SSL://{local}:{sasl},SSL://{local}:{mutual},CONTROLLER://{local}:{controller}
advertised.listeners=PLAINTEXT://{local}:{open},SASL_SSL://localhost:{sasl},SSL://localhost:{mutual}
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.ssl.ssl.client.auth=required
"""


class SecuredKafka(msgspec.Struct, frozen=True, kw_only=True):
    """How clients reach the broker: `sasl` by user and password, `mutual` by a certificate."""

    sasl: Kafka
    mutual: Kafka
    other_ca: str  # of an authority that did not sign the broker's certificate


@contextmanager
def secured_kafka(folder: Path) -> Iterator[SecuredKafka]:
    kept = folder / "certificates"
    kept.mkdir(parents=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(kept / "ca.pem")
    trustme.CA().cert_pem.write_to_path(kept / "other-ca.pem")
    _write_pair(authority.issue_cert("localhost"), kept / "broker.pem")
    _write_pair(authority.issue_cert("client.example"), kept / "client.pem")
    ports = {"open": free_port(), "sasl": free_port(), "mutual": free_port(), "controller": free_port()}
    properties = _PROPERTIES.format(local=LOCAL, user=USER, password=PASSWORD, folder=kept, **ports)
    users = tuple(f"SCRAM-SHA-{size}=[name={USER},password={PASSWORD}]" for size in (256, 512))
    settings = NodeSettings(properties=properties, scram_users=users)
    log = folder / "kafka.log"
    process = start(
        kafka_command(folder / "kafka", ensure_jars(), ports["open"], ports["controller"], 256, settings), log
    )
    try:
        wait_ready("kafka", process, partial(probe_kafka, f"{LOCAL}:{ports['open']}"), log, 60.0)
        yield SecuredKafka(
            sasl=Kafka(
                bootstrap=f"localhost:{ports['sasl']}",
                security_protocol="SASL_SSL",
                sasl_username=USER,
                sasl_password=Secret(PASSWORD),
                ssl_ca_file=str(kept / "ca.pem"),
                session_timeout_seconds=6.0,
            ),
            mutual=Kafka(
                bootstrap=f"localhost:{ports['mutual']}",
                security_protocol="SSL",
                ssl_ca_file=str(kept / "ca.pem"),
                ssl_certificate_file=str(kept / "client.pem"),
                ssl_key_file=str(kept / "client.pem"),
            ),
            other_ca=str(kept / "other-ca.pem"),
        )
    finally:
        end(process, 10.0)


def _write_pair(certificate: trustme.LeafCert, path: Path) -> None:
    """Key and chain in one PEM file, the key in PKCS#8: Kafka reads no other form."""
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    path.touch(0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    )
