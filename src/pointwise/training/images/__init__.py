"""Images as training data: where they come from, and how they become what a network reads."""
