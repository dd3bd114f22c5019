throw new Error("does not boot");
