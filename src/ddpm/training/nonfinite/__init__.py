"""Numbers that are not finite: noticed in their step, found, reported, and what a run does about them."""
