"""Trackers show a run's figures elsewhere while it trains. One file and one line here each.

A tracker module has

    PACKAGE, EXTRA                    what it imports, and what installs that ("": always there)
    APART                             whether it runs in a process of its own (apart.py), so that
                                      training never imports it and never waits for its network
    REWRITES                          whether it drops what it has of steps that are trained again
    Tracker(about)                    an About (following.py); does nothing slow
    Tracker.open()                    begins the run, or goes on with it
    Tracker.write(step, values)       values by name
    Tracker.close()                   sends what is left

metrics.jsonl and result.json are the truth, whatever becomes of a tracker.
"""

TRACKERS = {
    "tensorboard": "launch.trackers.tensorboard",
    "wandb": "launch.trackers.wandb_runs",
    "trackio": "launch.trackers.trackio_runs",
}
