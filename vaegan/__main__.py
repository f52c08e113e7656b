"""Run the command line: `python -m vaegan` is the same as `vaegan` and `python train.py`."""

from vaegan.cli.main import main

if __name__ == "__main__":
    main()
