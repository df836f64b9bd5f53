"""What single test images say of depths: when they are settled, learnt or lost, and what people say of them."""
