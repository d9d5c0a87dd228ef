"""Speaking up: ``planner`` decides what deserves it (pure), ``service`` is the platform's way to show it."""
