from __future__ import annotations

from ci.report import Row, table


def test_table_rows_stand_in_columns() -> None:
    rows = [
        Row("satellite", "linux/amd64", 61_250_000, "sha256:aa", 1.24),
        Row("ground-control", "linux/arm64", 123_456_789, "sha256:bb"),
    ]

    assert table(rows).splitlines() == [
        "image           platform         size  smoke  digest",
        "satellite       linux/amd64   61.2 MB  1.2 s  sha256:aa",
        "ground-control  linux/arm64  123.5 MB      -  sha256:bb",
    ]
