"""Settings for every test of the project."""

import hypothesis

# A loaded machine is slow, not wrong: nothing here is judged by the clock.
hypothesis.settings.register_profile(
    "sluice", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("sluice")
