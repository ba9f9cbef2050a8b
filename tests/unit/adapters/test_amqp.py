from notifier.adapters.amqp import _fit


def test_headers_that_cannot_be_written_again_do_not_fit() -> None:
    # A double over what four bytes hold came in, but pamqp would write it as a float.
    assert not _fit({"x": 1e300})


def test_headers_over_a_frame_do_not_fit() -> None:
    assert not _fit({"x": "y" * 200_000})


def test_usual_headers_fit() -> None:
    assert _fit({"x": "y", "n": 1})
