"""What a scraper is given: the format and coding that it prefers, and who it scrapes."""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import prometheus_client.openmetrics.parser
import prometheus_client.parser
import pytest

from sidecar.admin import prometheus_protobuf
from sidecar.admin.prometheus import OPENMETRICS_CONTENT_TYPE, TEXT_CONTENT_TYPE, render_own
from sidecar.admin.scrape import Format, accepts_gzip, metrics_response, preferred
from sidecar.core.installed import version
from sidecar.core.numbers import Numbers
from sidecar.core.sources import Sources
from sidecar.core.tls_numbers import CertificateNumbers
from sidecar.runtime.own_numbers import process_numbers
from sidecar.serving.message import Response
from sidecar.telemetry.identity import resource_attributes
from sidecar.telemetry.resource import make_resource
from tests.support.asked import asked
from tests.support.prometheus_messages import families
from tests.telemetry.fakes import FakeExchange, count_ended

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
NATIVE = (
    f"{PROTOBUF},application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
"""Of Prometheus 2.42 with its feature `native-histograms`."""
NATIVE_OF_PROMETHEUS_3 = (
    f"{PROTOBUF};q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
SOURCES = Sources(
    process=process_numbers(),
    build=(("version", "1.2"), ("python", "3.11")),
    resource=(("service.name", 'a "name"\\'), ("k8s.pod.name", "orders-1")),
)


class Process:
    numbers = Numbers()

    async def scraped(self) -> tuple[Numbers, Sources]:
        return self.numbers, SOURCES


async def scrape(**fields: str) -> Response:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return await metrics_response(asked("/metrics", **headers), Process())


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        (PROMETHEUS, True),
        (NATIVE, True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0", True),
        ('application/openmetrics-text; version="0.0.1"; q=0.7, text/plain; q=0.6', True),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.9", True),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        ("text/plain, application/openmetrics-text;q=0.9", False),
        ("application/openmetrics-text;q=0, text/plain", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=much", False),
        ("application/openmetrics-text;q=7", False),
        ("*/*", False),
        ("", False),
        (",;,", False),
    ],
)
def test_the_preferred_format(accept: str, is_open: bool) -> None:
    expected = Format.OPENMETRICS if is_open else Format.TEXT
    assert preferred(accept, may_be_protobuf=False) is expected


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (NATIVE, Format.PROTOBUF),
        (NATIVE_OF_PROMETHEUS_3, Format.PROTOBUF),
        (PROMETHEUS, Format.OPENMETRICS),
        (PROTOBUF, Format.PROTOBUF),
        (PROTOBUF.replace("delimited", '"delimited"').replace(";", " ; "), Format.PROTOBUF),
        (f"{PROTOBUF};q=0.5, text/plain;q=0.5", Format.PROTOBUF),
        (f"{PROTOBUF};q=0.5, text/plain;q=0.6", Format.TEXT),
        (f"{PROTOBUF};q=0.5, application/openmetrics-text;q=0.6", Format.OPENMETRICS),
        (f"{PROTOBUF};q=0, text/plain;q=0.1", Format.TEXT),
        (f"{PROTOBUF};q=0", Format.TEXT),
        (PROTOBUF.replace("delimited", "text"), Format.TEXT),
        (PROTOBUF.replace("delimited", "compact-text"), Format.TEXT),
        (PROTOBUF.replace("MetricFamily", "Other"), Format.TEXT),
        ("application/vnd.google.protobuf", Format.TEXT),
        ("application/*", Format.TEXT),
        ("*/*", Format.TEXT),
        ("", Format.TEXT),
    ],
)
def test_protobuf_is_sent_to_those_who_prefer_it_where_it_has_more_to_tell(accept: str, form: Format) -> None:
    assert preferred(accept, may_be_protobuf=True) is form
    assert preferred(accept, may_be_protobuf=False) is not Format.PROTOBUF


@pytest.mark.parametrize(
    ("accept", "is_accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.2", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("", False),
    ],
)
def test_gzip_is_sent_to_those_who_take_it(accept: str, is_accepted: bool) -> None:
    assert accepts_gzip(accept) is is_accepted


@pytest.mark.parametrize("filler", [",", "a,", ";", "a;q=1,", "a;b=c"])
def test_a_preference_that_is_too_long_is_none_and_costs_nothing(filler: str) -> None:
    """Reading 32 KiB of commas held the loop for 30 ms."""
    long = filler * (32_000 // len(filler))
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        found = (
            accepts_gzip("gzip," + long),
            preferred("application/openmetrics-text," + long, may_be_protobuf=True),
        )
    finally:
        sys.setprofile(None)
    assert found == (False, Format.TEXT)
    assert calls < 50


async def test_a_compressed_answer_is_the_same_text() -> None:
    count_ended(Process.numbers, FakeExchange())
    plain = await scrape(accept="text/plain")
    packed = await scrape(accept="text/plain", accept_encoding="gzip")
    assert plain.fields["Content-Type"] == packed.fields["Content-Type"] == TEXT_CONTENT_TYPE
    assert packed.fields["Content-Encoding"] == "gzip"
    assert plain.fields["Vary"] == "Accept, Accept-Encoding"
    assert isinstance(plain.body, bytes)
    assert isinstance(packed.body, bytes)
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 3
    assert (await scrape(accept=PROMETHEUS)).fields["Content-Type"] == OPENMETRICS_CONTENT_TYPE


@pytest.mark.parametrize(
    ("openmetrics", "parse"),
    [
        (False, prometheus_client.parser.text_string_to_metric_families),
        (True, prometheus_client.openmetrics.parser.text_string_to_metric_families),
    ],
)
def test_a_strict_parser_reads_who_is_scraped(openmetrics: bool, parse: object) -> None:
    text = "".join(render_own(SOURCES, openmetrics=openmetrics)) + ("# EOF\n" if openmetrics else "")
    samples = {sample.name: sample for family in parse(text) for sample in family.samples}  # type: ignore[operator]
    assert samples["target_info"].labels == {"service_name": 'a "name"\\', "k8s_pod_name": "orders-1"}
    assert samples["sidecar_build_info"].labels == {"version": "1.2", "python": "3.11"}
    assert samples["process_max_fds"].value == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert 1 < samples["process_open_fds"].value < samples["process_max_fds"].value
    assert (
        samples["process_virtual_memory_bytes"].value > samples["process_resident_memory_bytes"].value > 1e6
    )
    assert 0.0 < samples["process_cpu_seconds_total"].value <= sum(os.times()[:2]), (
        "as it was when it was asked"
    )
    assert 0.0 <= time.time() - samples["process_start_time_seconds"].value < 86_400.0


ODD_ATTRIBUTES = {
    "app.kubernetes.io/name": "orders",
    "team-name": "shop",
    "a.b": "2",
    "a_b": "3",
    "a-b": "1",
    "1st": "x",
    "__name__": "evil",
    'x="1"} 1\nevil{y': "z",
    "größe": "ü\n\r\0",
}
AS_LABELS = {
    "app_kubernetes_io_name": "orders",
    "team_name": "shop",
    "a_b": "1;2;3",
    "key_1st": "x",
    "key___name__": "evil",
    "x__1___1_evil_y": "z",
    "gr__e": "ü\n\r\0",
}


@pytest.mark.parametrize("openmetrics", [False, True])
def test_whatever_attributes_are_called_a_scraper_takes_them(openmetrics: bool) -> None:
    text = "".join(render_own(Sources(resource=tuple(ODD_ATTRIBUTES.items())), openmetrics=openmetrics))
    parse = (
        prometheus_client.openmetrics.parser.text_string_to_metric_families
        if openmetrics
        else prometheus_client.parser.text_string_to_metric_families
    )
    (family,) = parse(text + ("# EOF\n" if openmetrics else ""))
    (sample,) = family.samples
    assert (sample.name, sample.labels) == ("target_info", AS_LABELS)
    (told,) = families(
        b"".join(prometheus_protobuf.render_own(Sources(resource=tuple(ODD_ATTRIBUTES.items()))))
    ).values()
    assert {one.name: one.value for one in told.metric[0].label} == AS_LABELS


@pytest.mark.parametrize("form", [PROTOBUF, "application/openmetrics-text", "text/plain"])
async def test_the_name_of_a_file_that_is_no_text_costs_no_scrape(form: str) -> None:
    """Of a certificate in a folder with such a name."""
    told = Sources(
        certificates=[CertificateNumbers("listener/inbound", "d\udcff/tls.crt", 1.0)], native_histograms=True
    )

    class Named(Process):
        async def scraped(self) -> tuple[Numbers, Sources]:
            return self.numbers, told

    response = await metrics_response(asked("/metrics", accept=form), Named())
    assert isinstance(response.body, bytes)
    assert b"d?/tls.crt" in response.body


def test_bytes_of_the_environment_that_are_no_text_are_told_as_such() -> None:
    environ = {
        "POD_NAME": "p\udcff",
        "OTEL_RESOURCE_ATTRIBUTES": "k\udcfe=v\udcff,deployment.environment=%FF",
        "OTEL_SERVICE_NAME": "gr\udcc3\udcb6\udcff",
    }
    told = resource_attributes("orders", environ)
    assert (told["k8s.pod.name"], told["k\ufffd"], told["service.name"]) == (
        "p\ufffd",
        "v\ufffd",
        "grö\ufffd",
    )
    for openmetrics in (False, True):
        assert "".join(render_own(Sources(resource=tuple(told.items())), openmetrics=openmetrics)).encode()


def test_bytes_of_the_environment_that_are_no_text_cost_no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "k\udcfe=v\udcff", "OTEL_SERVICE_NAME": "s\udcff"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    made = make_resource(None, environ)
    assert made.attributes["telemetry.sdk.language"] == "python"
    assert {key: made.attributes[key] for key in ("service.name", "k\ufffd")} == {
        "service.name": "s\ufffd",
        "k\ufffd": "v\ufffd",
    }
    assert all(f"{key}{value}".encode() for key, value in made.attributes.items())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package `prometheus` is not installed")
@pytest.mark.parametrize("sources", [SOURCES, Sources(resource=tuple(ODD_ATTRIBUTES.items()))])
def test_promtool_finds_nothing_to_say(sources: Sources) -> None:
    text = "".join(render_own(sources, openmetrics=False))
    told = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


def test_a_system_without_these_files_tells_nothing(tmp_path: Path) -> None:
    assert process_numbers(tmp_path) is None
    assert list(render_own(Sources(), openmetrics=True)) == []


def test_who_produces_telemetry_is_the_same_for_all_signals() -> None:
    environ = {
        "POD_NAMESPACE": "shop",
        "POD_UID": "u1",
        "OTEL_RESOURCE_ATTRIBUTES": "team=a%20b, =x,service.version=7",
    }
    told = resource_attributes("orders", environ)
    assert told == resource_attributes("orders", environ)
    assert told["service.name"] == "orders"
    assert (told["service.namespace"], told["k8s.namespace.name"]) == ("shop", "shop")
    assert (told["team"], told["service.version"]) == ("a b", "7")
    assert resource_attributes("orders", {})["service.version"] == version()


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_service_name_of_blanks_is_none(blank: str) -> None:
    assert resource_attributes("orders", {"OTEL_SERVICE_NAME": blank})["service.name"] == "orders"
