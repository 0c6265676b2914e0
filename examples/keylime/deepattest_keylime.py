"""Keylime verifier plug-in: verdicts of deepattest as evidence.

A push agent that offers evidence of type "deep_attestation" is asked for it. The
evidence is a DSSE envelope (https://github.com/secure-systems-lab/dsse) with a verdict
about the guest and the hypervisor under it. The plug-in fails the attestation when the
envelope is not signed by a trusted key, is for another agent or another challenge, is
out of date, or says anything but "trusted". An agent that was enrolled with
`--plugin` (its metadata says so) fails too when it offers no such evidence: leaving the
verdict out must not be a way around it.

Install: put this file where the verifier's Python finds it and name it in verifier.conf:

    [verifier]
    measured_boot_imports = ['deepattest_keylime']

Configure: /etc/keylime/deepattest.json (or the file that DEEPATTEST_KEYLIME names)

    {"keys": ["/etc/keylime/deepattest/tenant.pem"], "max_age": 3600}

keys are PEM public keys, Ed25519 or ECDSA P-256. max_age is how many seconds ago the
verdict may have been found. A fault in the configuration stops the verifier when it
starts: it does not run without the checks that were asked for.

Made for Keylime 7.14 (push attestation, API 3.0). The interface that it uses is
Keylime's own and may change; a version without it is refused at the start.
"""

import base64
import datetime
import hashlib
import json
import os

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

EVIDENCE_TYPE = "deep_attestation"
PAYLOAD_TYPE = "application/vnd.deepattest.keylime-verdict.v1+json"
CONFIG = os.environ.get("DEEPATTEST_KEYLIME", "/etc/keylime/deepattest.json")
MAX_DOCUMENT = 1 << 20
MAX_LIFETIME = datetime.timedelta(minutes=10)  # between issued and expires
MAX_SKEW = datetime.timedelta(minutes=2)


class Refused(Exception):
    """The document does not say that the guest is trusted."""


def load_config(path=CONFIG):
    """Returns (keys, max_age): keys by their id, and a timedelta."""
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    unknown = set(config) - {"keys", "max_age"}
    if unknown:
        raise ValueError(f"{path}: unknown settings: {', '.join(sorted(unknown))}")
    keys = {}
    for name in config.get("keys", []):
        with open(name, "rb") as file:
            key = serialization.load_pem_public_key(file.read())
        p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
        if not p256 and not isinstance(key, ed25519.Ed25519PublicKey):
            raise ValueError(f"{name}: want an Ed25519 or ECDSA P-256 public key")
        spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        keys[hashlib.sha256(spki).hexdigest()] = key
    if not keys:
        raise ValueError(f"{path}: no keys: nothing could be verified")
    max_age = config.get("max_age", 3600)
    if isinstance(max_age, bool) or not isinstance(max_age, int) or max_age <= 0:
        raise ValueError(f"{path}: max_age must be a number of seconds")
    return keys, datetime.timedelta(seconds=max_age)


def verify_signature(keys, payload_type, payload, signatures):
    """True if one of the trusted keys signed. The key is found by its id, never taken
    from the envelope."""
    message = b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)
    for signature in signatures:
        key = keys.get(signature.get("keyid"))
        if key is None:
            continue
        try:
            sig = base64.b64decode(signature.get("sig", ""), validate=True)
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(sig, message)
            else:
                key.verify(sig, message, ec.ECDSA(hashes.SHA256()))
            return True
        except (InvalidSignature, ValueError):
            continue
    return False


def parse_time(text):
    when = datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    if when.tzinfo is None:
        raise ValueError(f"{text}: no time zone")
    return when


def examine(text, agent_id, challenge, keys, max_age, now):
    """Returns the document, or raises Refused with the reason."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if not text or len(text) > MAX_DOCUMENT:
        raise Refused(f"verdict document of {len(text or '')} characters")
    try:
        envelope = json.loads(text)
        payload = base64.b64decode(envelope["payload"], validate=True)
        payload_type, signatures = envelope["payloadType"], envelope["signatures"]
        if payload_type != PAYLOAD_TYPE:
            raise Refused(f"payloadType {payload_type!r}, want {PAYLOAD_TYPE}")
        if not verify_signature(keys, payload_type, payload, signatures):
            raise Refused("no signature by a trusted key")
        document = json.loads(payload)
        verdict, agent = document["verdict"], document["agent"]
        issued, expires = parse_time(document["issued"]), parse_time(document["expires"])
        appraised = parse_time(document["appraised"])
        bound = base64.b64decode(document.get("challenge", ""), validate=True)
    except Refused:
        raise
    except Exception as error:  # whatever a hostile document provokes
        raise Refused(f"verdict document that cannot be read: {type(error).__name__}: {error}") from error
    if agent != agent_id:
        raise Refused(f"verdict about agent {agent!r}, and this is {agent_id!r}")
    if bound and bound != challenge:
        raise Refused("verdict document for another attestation: a replay?")
    if issued > now + MAX_SKEW or expires - issued > MAX_LIFETIME or now >= expires:
        raise Refused(f"verdict document valid from {issued} to {expires}, and it is {now}")
    if now - appraised > max_age or appraised > now + MAX_SKEW:
        raise Refused(f"the verdict is of {appraised}, and at most {max_age} is accepted")
    if verdict != "trusted":
        raise Refused(f"the verdict is {verdict}: {document.get('reason', '')}")
    return document


def register(keys, max_age):
    """Hooks into the verifier. Imports of Keylime are here so that the rest can be tested
    without it."""
    from keylime import keylime_logging  # pylint: disable=import-outside-toplevel
    from keylime.verification.base import EngineDriver, VerificationEngine  # pylint: disable=import-outside-toplevel

    logger = keylime_logging.init_logging("deepattest")

    def items(attestation):
        found = attestation.evidence.view().filter(evidence_class="log", evidence_type=EVIDENCE_TYPE)
        return found.to_list()

    def challenge_of(attestation):
        for item in attestation.evidence:
            if item.evidence_type == "tpm_quote" and item.chosen_parameters:
                return bytes(item.chosen_parameters.challenge or b"")
        return b""

    def required(agent):
        try:
            return bool(json.loads(agent.meta_data or "{}")["deep_attestation"]["plugin"])
        except (ValueError, KeyError, TypeError):
            return False

    def problem(attestation):
        """Why the attestation may not pass, None if it may."""
        found = items(attestation)
        if not found:
            return "it offers no verdict document, which it was enrolled with" if required(attestation.agent) else None
        try:
            if len(found) > 1:
                raise Refused(f"{len(found)} verdict documents")
            now = datetime.datetime.now(datetime.timezone.utc)
            examine(found[0].data.entries, attestation.agent_id, challenge_of(attestation), keys, max_age, now)
        except Refused as refusal:
            return str(refusal)
        return None

    class DeepAttestationEngine(VerificationEngine):
        """Asks for the document and shows it to the administrator. It is called for every
        quote, so that leaving the document out is noticed."""

        @classmethod
        def register_callbacks(cls):
            EngineDriver.register_parameter_mutator(cls, ("tpm_quote", EVIDENCE_TYPE))
            EngineDriver.register_evidence_evaluator(cls, ("tpm_quote", EVIDENCE_TYPE))

        def process_capabilities(self, evidence_requested):
            for item in items(self.attestation)[:1]:
                item.chosen_parameters.format = "application/json"
                evidence_requested.append(item)

        def process_evidence(self):
            for item in items(self.attestation):
                try:
                    payload = base64.b64decode(json.loads(item.data.entries)["payload"])
                    item.data.meta = {EVIDENCE_TYPE: json.loads(payload)}  # unverified; for people
                except Exception:  # pylint: disable=broad-except
                    item.data.meta = {EVIDENCE_TYPE: "unreadable"}

        def verify_evidence(self):
            pass  # see commit below

    # Engines run in no certain order, and the one for quotes writes its own outcome over
    # whatever it finds. So the verdict is applied when all of them have run, right before
    # the outcome is stored.
    commit_outcome = EngineDriver._commit_verification_results  # pylint: disable=protected-access

    def commit(driver):
        attestation = driver.attestation
        why = problem(attestation)
        if why:
            logger.warning("Attestation %s of agent '%s' fails: %s", attestation.index, attestation.agent_id, why)
            if attestation.evaluation != "fail":
                attestation.evaluation = "fail"
                attestation.failure_reason = "policy_violation"
                agent = attestation.agent
                agent.consecutive_attestation_failures = (agent.consecutive_attestation_failures or 0) + 1
                attestation.refresh_metadata()
        commit_outcome(driver)

    EngineDriver._commit_verification_results = commit  # pylint: disable=protected-access
    logger.info("deepattest: %d trusted keys, verdicts of at most %s", len(keys), max_age)
    return DeepAttestationEngine


if __name__ != "__main__" and os.environ.get("DEEPATTEST_KEYLIME_TEST") is None:
    register(*load_config())
