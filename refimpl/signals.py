"""The signals to end that have come: what a stranger's code is not taken to have raised."""

ended_by: list[int] = []
