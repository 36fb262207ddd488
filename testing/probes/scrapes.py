"""Scrapes a process's metrics as Prometheus does."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

TOKEN = "0123456789abcdef" * 2


class Scrape:
    """The samples of one scrape."""

    def __init__(self, url: str) -> None:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        self.text = httpx.get(f"{url}/metrics", headers=bearer, timeout=30).raise_for_status().text
        self.samples = [
            sample
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """Returns the sum of the samples with this name and these labels, or 0 if there are none."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """Returns the values that a label has in the samples of this name."""
        return {sample.labels[label] for sample in self.samples if sample.name == name}
