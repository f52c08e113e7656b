"""Train a VAE, then a GAN that starts from it: python train.py --help"""

from vaegan.cli.main import main

if __name__ == "__main__":
    main()
