"""The laboratory: an Internet of Japan on one Linux machine (README.md beside this file)."""
