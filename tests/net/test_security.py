"""Secrets and certificates: where they come from, and which are refused."""

import datetime
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from net import security
from net.certificates import make_authority, make_certificate
from net.errors import BadCredentials
from net.security import Secret, Tls, choose_security, make_secret

GOOD = "a secret of the tests"


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (security.SECRET_FILE_VARIABLE, security.SECRET_VARIABLE, *security.TLS_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def secret_file(path: Path, content: str, mode: int = 0o600) -> Path:
    path.write_text(content)
    path.chmod(mode)
    return path


# ---------------------------------------------------------------------------------------------------------- secrets


def test_a_secret_is_never_shown() -> None:
    assert GOOD not in repr(Secret(GOOD))
    assert GOOD not in repr(choose_security(GOOD))


def test_the_same_secret_from_text_bytes_and_file_gives_the_same_key(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "s", f"{GOOD}\n")
    assert Secret(GOOD).keys() == Secret(GOOD.encode()).keys() == Secret(path).keys()
    assert Secret(GOOD) == Secret(GOOD) != Secret(GOOD + "!")
    assert len({Secret(path), Secret(path), Secret(GOOD), Secret(GOOD)}) == 2


@pytest.mark.parametrize("text", ["", "short", " " * 20, "x" * 15])
def test_a_short_secret_is_refused_with_its_length_and_not_with_itself(text: str) -> None:
    with pytest.raises(BadCredentials, match=r"the secret has \d+ bytes, 16 are the least") as caught:
        Secret(text)
    assert not text or text not in str(caught.value).replace("secret", "")


def test_a_file_holds_several_secrets_and_remarks(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "s", f"# of May\n{GOOD}\n\n{GOOD} before\n")
    assert Secret(path).keys() == (*Secret(GOOD).keys(), *Secret(GOOD + " before").keys())


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("", 0o600, "holds no secret"),
        ("# only a remark\n", 0o600, "holds no secret"),
        ("short\n", 0o600, "has 5 bytes"),
        (GOOD, 0o640, r"other users may use .* \(its mode is 640\); take that from them: chmod 600"),
        (GOOD, 0o604, "its mode is 604"),
        (GOOD, 0o602, "its mode is 602"),
        (GOOD * 5000, 0o600, "larger than 65536 bytes"),
    ],
    ids=["empty", "remark", "short", "group", "others", "writable", "huge"],
)
def test_a_file_that_must_not_be_used_is_refused(tmp_path: Path, content: str, mode: int, words: str) -> None:
    path = secret_file(tmp_path / "s", content, mode)
    with pytest.raises(BadCredentials, match=words) as caught:
        Secret(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadCredentials, match="cannot be read: No such file"):
        Secret(tmp_path / "missing")
    with pytest.raises(BadCredentials, match="is no file"):
        Secret(tmp_path)


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = secret_file(tmp_path / "s", GOOD)
    secret = Secret(path)
    before = secret.keys()
    secret_file(path, "the next secret, longer\n" + GOOD)
    assert secret.keys() == (*Secret("the next secret, longer").keys(), *before)
    now = secret.keys()
    path.write_text("short")
    for _ in range(3):
        assert secret.keys() == now
    path.unlink()
    assert secret.keys() == now
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the secrets read before stay in use"
    ] * 2  # once for each change


def test_a_made_secret_is_long_private_and_another_one_each_time(tmp_path: Path) -> None:
    one, two = make_secret(tmp_path / "one"), make_secret(tmp_path / "two")
    assert one.stat().st_mode & 0o777 == 0o600
    assert len(one.read_text().strip()) == 43
    assert Secret(one).keys() != Secret(two).keys()
    with pytest.raises(BadCredentials, match="exists already"):
        make_secret(one)
    with pytest.raises(BadCredentials, match="cannot be written"):
        make_secret(tmp_path / "missing" / "secret")


# ------------------------------------------------------------------------------------------------------ environment


def test_the_environment_says_what_no_argument_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_security() is None
    monkeypatch.setenv("TASKLETS_SECRET", GOOD)
    assert choose_security() == choose_security(GOOD)
    monkeypatch.setenv("TASKLETS_SECRET_FILE", str(make_secret(tmp_path / "s")))
    assert choose_security() == choose_security(tmp_path / "s")
    assert choose_security("another secret, as argument") == choose_security("another secret, as argument")
    assert choose_security(insecure=True) is None


def test_certificates_come_from_the_environment_all_or_none(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = make_certificate(authority, "environment")
    monkeypatch.setenv("TASKLETS_TLS_CA", str(tls.ca))
    with pytest.raises(BadCredentials, match="TASKLETS_TLS_CERT, TASKLETS_TLS_KEY is not set"):
        choose_security()
    monkeypatch.setenv("TASKLETS_TLS_CERT", str(tls.certificate))
    monkeypatch.setenv("TASKLETS_TLS_KEY", str(tls.key))
    chosen = choose_security()
    assert chosen is not None
    assert chosen.tls is not None
    assert chosen.secret is None


def test_insecure_beside_a_secret_is_a_contradiction() -> None:
    with pytest.raises(BadCredentials, match="leave out one of them"):
        choose_security(GOOD, insecure=True)


# ----------------------------------------------------------------------------------------------------- certificates


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    return folder


def test_keys_are_private_and_nothing_is_overwritten(authority: Path) -> None:
    tls = make_certificate(authority, "alpha", ["alpha", "10.0.0.7"])
    assert (authority / "ca.key").stat().st_mode & 0o777 == 0o600
    assert Path(tls.key).stat().st_mode & 0o777 == 0o600
    for make in (lambda: make_authority(authority), lambda: make_certificate(authority, "alpha")):
        with pytest.raises(BadCredentials, match="exists already"):
            make()


def test_a_certificate_names_its_hosts(authority: Path) -> None:
    from cryptography import x509

    tls = make_certificate(authority, "beta", ["beta.example", "10.0.0.7", "::1"])
    made = x509.load_pem_x509_certificate(Path(tls.certificate).read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["beta.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "::1"]
    left = made.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=364) < left < datetime.timedelta(days=366)


@pytest.mark.parametrize("name", ["", "ca", "..", "a/b", "a b"])
def test_a_name_that_is_no_file_name_is_refused(authority: Path, name: str) -> None:
    with pytest.raises(BadCredentials, match="is no name for a certificate"):
        make_certificate(authority, name)


def test_a_host_that_is_no_host_is_refused(authority: Path) -> None:
    with pytest.raises(BadCredentials, match="is no host name"):
        make_certificate(authority, "gamma", ["bücher.example"])


def test_where_there_is_no_authority_is_told(tmp_path: Path, authority: Path) -> None:
    with pytest.raises(BadCredentials, match=r"ca\.key cannot be read"):
        make_certificate(tmp_path, "alpha")
    secret_file(tmp_path / "ca.key", "no key")
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(BadCredentials, match="holds no authority made here"):
        make_certificate(tmp_path, "alpha")
    (tmp_path / "ca.key").unlink()
    (tmp_path / "ca.pem").unlink()
    make_authority(tmp_path)
    (tmp_path / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
    with pytest.raises(BadCredentials, match="is not the key of"):
        make_certificate(tmp_path, "alpha")


def test_files_that_are_no_certificates_are_refused(tmp_path: Path, authority: Path) -> None:
    one, two = make_certificate(authority, "one"), make_certificate(authority, "two")
    junk = secret_file(tmp_path / "junk", "junk")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"ca": junk}, "holds no certificate of an authority"),
        ({"ca": tmp_path / "missing"}, "holds no certificate of an authority"),
        ({"certificate": junk}, "are no certificate and its key"),
        ({"key": two.key}, "are no certificate and its key"),
        ({"key": tmp_path / "missing"}, "cannot be read"),
    ]
    for change, words in wrong:
        files = {"ca": one.ca, "certificate": one.certificate, "key": one.key} | change
        with pytest.raises(BadCredentials, match=words):
            Tls(**files)
    os.chmod(one.key, 0o644)
    with pytest.raises(BadCredentials, match="chmod 600"):
        Tls(one.ca, one.certificate, one.key)


def test_certificates_are_read_again_when_they_have_changed(
    authority: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = make_certificate(authority, "renewed")
    before = tls.context(accepting=True)
    assert tls.context(accepting=True) is before
    Path(tls.certificate).unlink()
    assert tls.context(accepting=True) is before
    assert "the certificates read before stay in use" in caplog.text
    Path(tls.key).unlink()
    make_certificate(authority, "renewed")
    assert tls.context(accepting=True) is not before


def test_only_todays_tls_is_spoken_and_both_sides_must_show_a_certificate(authority: Path) -> None:
    tls = make_certificate(authority, "strict")
    for accepting in (True, False):
        context = tls.context(accepting=accepting)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname is not accepting
