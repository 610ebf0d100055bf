"""What people do to an outbox: look at it, measure it, bring refused rows back or remove them."""
