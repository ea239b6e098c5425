"""Names of rows, what they tell the load generator, and what their measures make of its answer.

    python3 scripts/lab.d/rows_test.py
"""

import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import rows  # noqa: E402


def only(name):
    (row,) = rows.parse_rows(name, 5000)
    return row


class Names(unittest.TestCase):
    def test_every_listed_row_is_known(self):
        listed = rows.parse_rows(",".join((rows.DECIDING, rows.REST, rows.SIZES)), 5000)
        self.assertEqual(len(listed), len({row.name for row in listed}))
        for row in listed:
            # The name of a row that was made from another one is a row as well.
            again = only(row.name)
            self.assertEqual((again.title, again.load_options()),
                             (row.title, row.load_options()))
            self.assertTrue(row.title and row.measures, row.name)

    def test_a_name_says_what_the_load_generator_does(self):
        for name, told in {
            "echo64": dict(workload="echo", sessions=1, size=64),
            "echo16kx100": dict(workload="echo", sessions=100, size=16384),
            "bulk16-both-4k": dict(workload="bulk-both", sessions=16, size=4096),
            "open1kx100@20k": dict(workload="echo-open", sessions=100, size=1024, rate=20000),
            "open64@500": dict(workload="echo-open", sessions=1, size=64, rate=500),
            "crowd300+3": dict(workload="crowd", sessions=303, size=64, busy=3),
            "slow5": dict(workload="slow-readers", sessions=15, size=64, busy=10),
            "mixed": dict(workload="mixed", sessions=30, size=64),
            "bulk1-up-4k-text": dict(workload="bulk-up", sessions=1, size=4096, payload="text"),
            "echo64x10-text": dict(workload="echo", sessions=10, size=64, payload="text"),
            "idle1k": dict(workload="idle", sessions=5000, size=1024),
        }.items():
            self.assertEqual(only(name).load_options(), told, name)

    def test_bulk_without_a_direction_is_two_rows(self):
        names = [row.name for row in rows.parse_rows("bulk1,bulk2-1k-text", 1)]
        self.assertEqual(names, ["bulk1-up", "bulk1-down", "bulk2-up-1k-text",
                                 "bulk2-down-1k-text"])

    def test_a_wrong_name_is_named(self):
        for wrong in ("", "echo", "echo64x", "open64", "open64@", "bulk0", "echo64x0", "slow+3",
                      "crowd2000+0", "idle64k4", "bulk1-sideways"):
            with self.assertRaises(SystemExit) as raised:
                rows.parse_rows("upgrades," + wrong, 1)
            self.assertIn(repr(wrong), str(raised.exception))
        with self.assertRaisesRegex(SystemExit, "twice: bulk1-up"):
            rows.parse_rows("bulk1,bulk1-up", 1)


class Values(unittest.TestCase):
    def measured(self, name, **item):
        return {m.name: m.value(item) for m in only(name).measures}

    def test_rates_and_costs_are_per_unit(self):
        found = self.measured("mixed", units=3000, seconds=1.5, cpu_seconds=0.9, p50_us=8, p99_us=9)
        self.assertAlmostEqual(found["rate"], 2000)
        self.assertAlmostEqual(found["CPU"], 300)

    def test_memory_is_per_session_and_of_slow_readers_only(self):
        grown = dict(pss_before=1e6, pss_after=2e6, kernel_before=0, kernel_after=4e6)
        found = self.measured("idle", units=500, **grown)
        self.assertEqual((found["PSS"], found["kernel"]), (2, 8))
        found = self.measured("slow20+10", units=123456, p50_us=1, p99_us=2, **grown)
        self.assertEqual((found["PSS"], found["kernel"]), (50, 200))

    def test_lists_and_objects_are_json_in_a_cell(self):
        item = dict.fromkeys(rows.NUMBERS + rows.NESTED)
        item.update(units=3, latencies=[[0.5, 12.5]], kernel_parts={"TCP": -2})
        found = rows.cells(item)
        self.assertEqual(found["latencies"], "[[0.5, 12.5]]")
        self.assertEqual(found["kernel_parts"], '{"TCP": -2}')
        self.assertEqual((found["units"], found["p50_us"]), (3, None))

    def test_an_end_without_time_left_is_named(self):
        self.assertIsNone(rows.end_at_its_limit(dict(load_busy=0.7, backend_busy=None)))
        self.assertEqual(rows.end_at_its_limit(dict(load_busy=0.97)), "load generator")
        self.assertEqual(rows.end_at_its_limit(dict(load_busy=0.2, backend_busy=0.95)), "backend")
        late = dict(load_busy=0.1, p99_us=900, lag_p99_us=600)
        self.assertEqual(rows.end_at_its_limit(late), "load generator")
        self.assertIsNone(rows.end_at_its_limit(dict(late, lag_p99_us=50)))


if __name__ == "__main__":
    unittest.main()
