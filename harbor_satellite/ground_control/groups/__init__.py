"""Groups: what they name, by lists, selectors and rules of Harbor; and publishing them."""
