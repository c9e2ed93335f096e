"""Running on another machine over ssh, or on an emulated ARM processor."""
