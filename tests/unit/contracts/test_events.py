from lethe_contracts.events import ALL, STATE_AFTER, CancelRefused, JobEvent


def test_every_event_of_the_eraser_but_one_names_a_state() -> None:
    of_jobs = {event for event in ALL if issubclass(event, JobEvent)}
    assert of_jobs - STATE_AFTER.keys() == {CancelRefused}
