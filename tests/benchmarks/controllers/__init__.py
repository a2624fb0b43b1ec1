"""Controllers of the learning rate beside tuned schedules: `make controllers`."""
