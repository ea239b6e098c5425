#!/usr/bin/env python3
"""Checks the lab's tables and HTML report with runs that nobody measured; needs no browser.

    scripts/lab.d/check.py                 the checks, some seconds
    scripts/lab.d/check.py --write DIR     only makes a run with everything in it, to look at
"""

import math
import re
import sys
import tempfile
import unittest
from html.parser import HTMLParser
from pathlib import Path

sys.dont_write_bytecode = True

import goals  # noqa: E402
import html_page  # noqa: E402
import report  # noqa: E402
import synthetic  # noqa: E402
from run import Run  # noqa: E402

VOID = {"meta", "line", "rect", "circle", "polygon", "path", "input", "br", "link", "img"}
PLACES = {"x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "width", "height", "viewbox",
          "points", "d"}
SOME_TARGETS = ("direct", "upsplice-splice", "upsplice-copy", "haproxy", "nginx-64k", "caddy")


class Page(HTMLParser):
    """Tags that match, and what the checks ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.tags, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append("</%s> at line %d" % (tag, self.getpos()[0]))

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def of_class(self, name):
        return [attributes for _, attributes in self.tags
                if name in (attributes.get("class") or "").split()]


class Report(unittest.TestCase):
    """Of a run that has everything: workloads, shapes, workers, gaps and failures."""

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.directory = synthetic.write(Path(cls.scratch.name) / "run", rounds=2)
        cls.run_ = Run(cls.directory)
        cls.text = html_page.write(cls.directory).read_text(encoding="utf-8")
        cls.page = Page(cls.text)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def test_is_well_formed(self):
        self.assertEqual((self.page.wrong, self.page.open), ([], []))
        ids = [attributes["id"] for _, attributes in self.page.tags if attributes.get("id")]
        self.assertEqual(len(ids), len(set(ids)))

    def test_every_number_of_a_picture_is_finite(self):
        seen = 0
        for tag, attributes in self.page.tags:
            for name in PLACES & attributes.keys():
                for word in re.split(r"[\s,MLZ]+", attributes[name].strip("MLZ ")):
                    self.assertTrue(math.isfinite(float(word)), (tag, attributes))
                    seen += 1
        self.assertGreater(seen, 1000)

    def test_asks_for_nothing_from_elsewhere(self):
        self.assertNotRegex(self.text, r"https?:|//[a-z]|@import|url\(")
        for tag, attributes in self.page.tags:
            self.assertNotIn("src", attributes, tag)
            self.assertTrue((attributes.get("href") or "#").startswith("#"), attributes)

    def test_links_lead_somewhere(self):
        ids = {attributes.get("id") for _, attributes in self.page.tags}
        for tag, attributes in self.page.tags:
            if tag == "a":
                self.assertIn(attributes["href"][1:], ids)

    def test_every_target_is_in_the_legend_and_in_the_matrix(self):
        for name in self.run_.targets:
            chips = [found for _, found in self.page.tags if found.get("data-chip") == name]
            heads = [tag for tag, found in self.page.tags
                     if tag == "th" and found.get("data-target") == name]
            self.assertEqual((len(chips), len(heads)), (1, 1), name)

    def test_every_workload_has_a_picture(self):
        captions = " ".join(self.page.texts)
        for cell in self.run_.cells:
            self.assertIn(cell.title, captions)
        for word in ("by frame size", "by session count", "by rate", "by workers",
                     "by percentile", "idle sessions", "CPU per GB"):
            self.assertIn(word, captions)

    def test_pictures_are_described(self):
        pictures = [found for tag, found in self.page.tags
                    if tag == "svg" and found.get("role") == "img"]
        ids = {found.get("id") for _, found in self.page.tags}
        self.assertGreater(len(pictures), 50)
        for found in pictures:
            for name in found["aria-labelledby"].split():
                self.assertIn(name, ids)

    def test_every_loss_is_listed_and_marked(self):
        losses = self.run_.losses(self.run_.shipped)
        self.assertGreater(len(losses), 5)
        defeats = self.run_.defeats(self.run_.shipped)
        self.assertEqual(len(defeats), len(self.run_.shapes))
        self.assertEqual(len(self.page.of_class("meter")), len(losses) + len(defeats))
        ours = self.run_.of_kind("ours")
        every = [1 for cell in self.run_.cells for measure in cell.measures for name in ours
                 if self.run_.loses(cell, measure, name)]
        matrix = [found for found in self.page.of_class("loses")
                  if found.get("data-target") in ours]
        self.assertEqual(len(matrix), len(every))

    def test_every_goal_has_a_verdict(self):
        self.assertEqual(len(self.page.of_class("badge")), len(goals.GOALS))
        for verdict in ("reached", "missed"):
            self.assertTrue([found for found in self.page.of_class("badge")
                             if verdict in found["class"]], verdict)

    def test_text_of_others_is_escaped(self):
        self.assertNotIn("<synthetic>", self.text)
        self.assertNotIn("<no>", self.text)
        self.assertIn('did not start: c: <no> "such" | flag', " ".join(self.page.texts))

    def test_kernel_memory_is_what_a_proxy_adds(self):
        cell = next(cell for cell in self.run_.cells if cell.workload == "idle")
        kernel = cell.measures[1]
        self.assertEqual(self.run_.values(cell, kernel, "direct"), {})
        self.assertAlmostEqual(self.run_.median(cell, kernel, "upsplice-auto"), 7.4, delta=0.2)


class Tables(unittest.TestCase):
    """The Markdown of the same and of lesser runs."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name) / "run"

    def made(self, **wanted):
        tables = report.Tables(synthetic.write(self.directory, **wanted))
        return tables, tables.short(), tables.full()

    def both(self, rows=("bulk1-up", "echo64x1", "upgrades", "idle"), **wanted):
        made = self.made(rows=rows, **wanted)
        html_page.write(self.directory)
        return made

    def test_lines_have_as_many_cells_as_their_head(self):
        _, short, full = self.made(rounds=1)
        for text in (short, full):
            head = 0
            for line in text.splitlines():
                cells = line.count("|") - 1
                head = cells if line.startswith(("| row", "| load")) else head
                if line.startswith("|"):
                    self.assertEqual(cells, head, line)

    def test_short_table_keeps_every_loss_and_every_goal(self):
        tables, short, _ = self.made(rounds=1)
        shipped = [line.split(" | ")[3] for line in short.splitlines() if line.startswith("| ")]
        losses = len(tables.losses(tables.shipped))
        self.assertGreater(losses, 5)
        found = sum(bool(re.search(r"^[^;]*; [\d.]+× \*\*loses\*\*", cell)) for cell in shipped)
        self.assertEqual(found, losses)
        for words in ("≥ 1.2 × best peer: ", "≤ 2 × direct: ", "≤ 1 KB: ", "**not** ("):
            self.assertIn(words, short)

    def test_a_loss_says_when_client_and_backend_set_the_pace(self):
        tables, _, _ = self.made(rounds=1)
        for _, cell, measure in tables.losses(tables.shipped):
            ours, direct = (tables.median(cell, measure, name)
                            for name in (tables.shipped, tables.direct))
            expected = not measure.has_no_direct and direct is not None and (
                ours == direct or (ours > direct) == measure.higher_is_better)
            verdict = tables.verdict(cell, measure, tables.shipped, ("peer",))
            self.assertIn("**loses**", verdict)
            self.assertEqual("no worse than direct" in verdict, expected, verdict)
            as_direct = tables.is_as_direct(cell, measure, tables.direct)
            self.assertEqual(as_direct, not measure.has_no_direct and direct is not None)

    def test_a_run_of_the_first_version_of_the_lab_can_be_reported(self):
        _, short, full = self.both(columns=synthetic.FIRST_COLUMNS, shapes=("loopback",))
        self.assertIn("| bulk up, 64 KiB frames, 1 session | rate, GB/s |", short)
        self.assertIn("haproxy-splice-1m", full)
        self.assertNotIn("kernel, KB", short)

    def test_inspection_is_compared_with_zero_copy(self):
        tables, short, full = self.both(rows=("bulk1-up", "echo16384x1"), rounds=3)
        page = (self.directory / html_page.NAME).read_text(encoding="utf-8")
        for text in (short, full, page):
            self.assertIn("Cost of inspection", text)
        [line] = [line for line in short.splitlines() if line.startswith("| bulk up, 1 session |")]
        size, frame, gigabyte, frames, payload = line.strip("| ").split(" | ")[1:6]
        self.assertEqual(size, "64 KiB")
        cell = next(cell for cell in tables.cells if cell.workload == "bulk-up")
        zero_copy = tables.median(cell, cell.measures[1], "upsplice-auto")
        self.assertEqual(gigabyte, "%.3f" % zero_copy)
        self.assertEqual(frame, "%.2f" % (zero_copy * 65.536))
        # The speeds that synthetic.py gives them.
        self.assertAlmostEqual(float(frames.split()[0]), 2.4 / 2.0, delta=0.1)
        self.assertAlmostEqual(float(payload.split()[0]), 2.4 / 0.7, delta=0.4)

    def test_a_run_without_inspection_says_nothing_of_its_cost(self):
        kinds = {name: synthetic.KINDS[name] for name in SOME_TARGETS}
        _, short, full = self.both(rounds=1, kinds=kinds)
        page = (self.directory / html_page.NAME).read_text(encoding="utf-8")
        for text in (short, full, page):
            self.assertNotIn("Cost of inspection", text)
        self.assertTrue([found for found in Page(page).of_class("badge")
                         if "unknown" in found["class"]])

    def test_a_single_round_without_peers_can_be_reported(self):
        kinds = {name: synthetic.KINDS[name] for name in SOME_TARGETS[1:3]}
        tables, short, _ = self.both(rounds=1, kinds=kinds)
        self.assertEqual(tables.losses(tables.shipped), [])
        self.assertNotIn("loses", short)

    def test_a_run_with_several_workers_only_has_pictures(self):
        self.both(rounds=1)
        raw = self.directory / "raw.csv"
        lines = raw.read_text(encoding="utf-8").splitlines(keepends=True)
        lines[1:] = [re.sub(",(loopback|veth|veth-plain),1,", r",\1,4,", line)
                     for line in lines[1:]]
        raw.write_text("".join(lines), encoding="utf-8")
        self.assertEqual({cell.workers for cell in Run(self.directory).cells}, {4})
        text = html_page.write(self.directory).read_text(encoding="utf-8")
        self.assertIn('<section id="throughput">', text)

    def test_a_run_that_measured_nothing_can_be_reported(self):
        for kinds in ({"absent": "peer"}, {"direct": "direct"}, {}):
            self.both(rounds=1, kinds=kinds)

    def test_the_default_stands_for_upsplice_where_it_was_measured(self):
        kinds = {name: synthetic.KINDS[name] for name in SOME_TARGETS}
        self.assertEqual(self.both(rounds=1, kinds=kinds)[0].shipped, "upsplice-splice")
        kinds["upsplice-auto"] = "ours"
        self.assertEqual(self.both(rounds=1, kinds=kinds)[0].shipped, "upsplice-auto")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        print(html_page.write(synthetic.write(sys.argv[2])))
    else:
        unittest.main()
