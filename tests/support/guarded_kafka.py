"""A broker that lets nobody in who does not speak TLS and say who it is."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lethe_sandbox.stack.embedded import Kafka

USER: Final = "shop"
PASSWORD: Final = "s3cret, with = and \\ in it"
_HOST: Final = "127.0.0.1"
_LOGIN_MODULE: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
_MORE_PROPERTIES: Final = """
listeners={doors},CONTROLLER://{host}:{controller}
advertised.listeners={doors}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL,CERTIFICATE:SSL
ssl.keystore.type=PEM
ssl.keystore.location={pem}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.login.sasl.enabled.mechanisms=PLAIN
listener.name.login.plain.sasl.jaas.config={jaas}
listener.name.certificate.ssl.client.auth=required
"""


class GuardedKafka(Kafka):
    """One node with two guarded doors: `login` by SASL over TLS, `certificate` by the client's."""

    port_count: ClassVar[int] = 4

    @property
    def login(self) -> str:
        """Where a name and a password are asked for."""
        return f"{_HOST}:{self.ports[2]}"

    @property
    def certificate(self) -> str:
        """Where a certificate is asked for."""
        return f"{_HOST}:{self.ports[3]}"

    @property
    def ca_file(self) -> Path:
        """The certificate of broker and clients, which signed itself."""
        return self.folder / "certificate.pem"

    @property
    def key_file(self) -> Path:
        """Its key."""
        return self.folder / "key.pem"

    def tls(self, *, own: bool = False) -> ssl.SSLContext:
        """Trust the broker, and show a certificate to it, if wanted."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if own:
            context.load_cert_chain(self.ca_file, self.key_file)
        return context

    def prepare(self) -> None:
        """Open the doors; of a property that stands twice the last one counts."""
        super().prepare()
        certificate_pem, key_pem = certify()
        self.ca_file.write_bytes(certificate_pem)
        self.key_file.write_bytes(key_pem)
        both = self.folder / "both.pem"
        both.write_bytes(key_pem + certificate_pem)
        plain, controller, login, certificate = self.ports
        doors = {"PLAINTEXT": plain, "LOGIN": login, "CERTIFICATE": certificate}
        # Once for the quotes of JAAS, once for properties.
        password = PASSWORD.replace("\\", "\\" * 4)
        more = _MORE_PROPERTIES.format(
            host=_HOST,
            controller=controller,
            doors=",".join(f"{name}://{_HOST}:{port}" for name, port in doors.items()),
            pem=both,
            ca=self.ca_file,
            jaas=f'{_LOGIN_MODULE} required user_{USER}="{password}";',
        )
        with (self.folder / "server.properties").open("a") as file:
            file.write(more)


def certify() -> tuple[bytes, bytes]:
    """Make a certificate that signed itself, and its key; both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _HOST)])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address(_HOST))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    unlocked = serialization.NoEncryption()
    return (
        signed.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unlocked),
    )
