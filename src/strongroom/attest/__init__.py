"""Attestation: untrusted evidence goes in, an attestation result comes out (RFC 9334 terms).

``keyset`` is an enclave's identity, ``evidence`` what a platform says, ``vector`` the AR4SI trust vector; one module a
platform (``simulated``) verifies what that platform signed; ``appraisal.appraise`` is the one maker of an
``AttestationResult``.
"""
