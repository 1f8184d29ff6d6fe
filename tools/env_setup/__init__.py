"""Parts of tools/setup_env.py; standard library only, Python 3.8 or later."""
