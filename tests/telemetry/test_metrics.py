import subprocess
import sys

import pytest
from fakes.records import make_record
from prometheus_client.parser import text_string_to_metric_families

from edge import __version__
from edge.telemetry.metrics import Metrics
from edge.telemetry.record import StreamRecord

ASKED = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "m", "upstream": "local"}


def record(**changes: object) -> StreamRecord:
    busy = {"heartbeats": 2, "stalls": 1, "pauses": 2, "http10": True, "peak_buffer_bytes": 2000}
    return make_record(**{"total_s": 2.5, "ttft_s": 0.5, "tokens_out": 11, **busy, **changes})


class Scrape:
    """What a Prometheus server would read."""

    def __init__(self, metrics: Metrics) -> None:
        body, self.content_type = metrics.render()
        families = text_string_to_metric_families(body.decode())
        self.samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        found = [sample.value for sample in self.samples if (sample.name, sample.labels) == (name, labels)]
        assert len(found) <= 1
        return found[0] if found else None

    def labels(self, name: str, label: str) -> set[str]:
        return {sample.labels[label] for sample in self.samples if sample.name == name}


def observed(*records: StreamRecord, models: tuple[str, ...] = ("m",)) -> Scrape:
    metrics = Metrics(lambda: 3, lambda: models)
    for each in records:
        metrics.observe(each)
    return Scrape(metrics)


def test_an_exchange_is_told_under_the_conventions_names():
    scrape = observed(record(), record())
    assert scrape.value("gen_ai_server_request_duration_seconds_sum", **ASKED, error_type="") == 5.0
    assert scrape.value("gen_ai_server_time_to_first_token_seconds_count", **ASKED) == 2
    assert scrape.value("gen_ai_server_time_to_first_token_seconds_sum", **ASKED) == 1.0
    assert scrape.value("gen_ai_client_token_usage_sum", **ASKED, gen_ai_token_type="input") == 14
    assert scrape.value("gen_ai_client_token_usage_sum", **ASKED, gen_ai_token_type="output") == 22


def test_time_per_output_token_leaves_the_first_out():
    scrape = observed(record())
    assert scrape.value("gen_ai_server_time_per_output_token_seconds_sum", **ASKED) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "changes", [{"tokens_from": "counted"}, {"tokens_out": 1}, {"ttft_s": None}, {"outcome": "client_gone"}]
)
def test_time_per_output_token_is_told_only_of_whole_answers_with_reported_usage(changes):
    scrape = observed(record(**changes))
    assert not any("time_per_output_token" in sample.name for sample in scrape.samples)


def test_what_edge_itself_did_is_counted():
    scrape = observed(record(), record(surface="messages", outcome="upstream_cut", http10=False))
    assert scrape.value("edge_exchanges_total", surface="chat", outcome="complete", upstream="local") == 1
    assert scrape.value("edge_exchanges_total", surface="messages", outcome="upstream_cut", upstream="local") == 1
    assert scrape.value("edge_client_blocked_seconds_total") == 1.0
    assert scrape.value("edge_buffer_peak_bytes_bucket", le="1024.0") == 0
    assert scrape.value("edge_buffer_peak_bytes_bucket", le="4096.0") == 2
    assert scrape.value("edge_heartbeats_total") == 4
    assert scrape.value("edge_stalls_total") == 2
    assert scrape.value("edge_pauses_total") == 4
    assert scrape.value("edge_http10_total") == 1


def test_a_failure_is_the_error_type_of_its_duration():
    scrape = observed(record(outcome="upstream_stall", ttft_s=None))
    assert scrape.value("gen_ai_server_request_duration_seconds_count", **ASKED, error_type="upstream_stall") == 1
    assert scrape.value("gen_ai_server_time_to_first_token_seconds_count", **ASKED) is None


def test_names_that_clients_make_up_do_not_make_series():
    made_up = [record(model=f"model-{number}") for number in range(50)]
    scrape = observed(*made_up, record(model=None), record(surface="x", outcome="y", upstream=None))
    assert scrape.labels("gen_ai_server_request_duration_seconds_count", "gen_ai_request_model") == {"other", "m"}
    assert scrape.labels("edge_exchanges_total", "surface") == {"chat", "other"}
    assert scrape.labels("edge_exchanges_total", "outcome") == {"complete", "other"}
    assert scrape.labels("edge_exchanges_total", "upstream") == {"local", "none"}


def test_surfaces_are_told_as_the_conventions_operations():
    surfaces = ["chat", "messages", "responses", "completions", "embeddings", "count_tokens"]
    scrape = observed(*(record(surface=surface) for surface in surfaces))
    told = scrape.labels("gen_ai_server_request_duration_seconds_count", "gen_ai_operation_name")
    assert told == {"chat", "text_completion", "embeddings", "count_tokens"}
    assert scrape.labels("edge_exchanges_total", "surface") == set(surfaces)


def test_models_become_known_while_running():
    models: list[str] = []
    metrics = Metrics(lambda: 0, lambda: models)
    metrics.observe(record())
    models.append("m")
    metrics.observe(record())
    told = Scrape(metrics).labels("gen_ai_server_request_duration_seconds_count", "gen_ai_request_model")
    assert told == {"other", "m"}


def test_a_scrape_tells_the_present_and_the_process():
    running = [1]
    metrics = Metrics(lambda: len(running), lambda: ())
    running.append(2)
    scrape = Scrape(metrics)
    assert scrape.value("edge_streams_active") == 2
    assert scrape.value("edge_build_info", version=__version__) == 1
    assert scrape.value("python_info", **next(s.labels for s in scrape.samples if s.name == "python_info")) == 1
    assert scrape.content_type.startswith("text/plain; version=0.0.4")
    if sys.platform == "linux":
        assert scrape.value("process_open_fds") > 0


def test_two_instances_do_not_share_counts():
    observed(record())
    assert observed().value("edge_heartbeats_total") == 0


def test_only_the_metrics_module_loads_the_client_library():
    code = "import sys, edge.telemetry.log, edge.telemetry.timeline; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own code
