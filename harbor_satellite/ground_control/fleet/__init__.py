"""The fleet as it says of itself: reports, who is behind and why, what is lost."""
