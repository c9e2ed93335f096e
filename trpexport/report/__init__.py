"""What people are shown: views turn facts into blocks, renderers put blocks on a screen or page."""
