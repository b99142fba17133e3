import express from "express";

const app = express();
app.use(express.json());

const tasks = [{ id: 1, title: "Write the app as usual", done: true }];

app.get("/tasks", (request, response) => {
  const { done } = request.query;
  response.json(
    done === undefined
      ? tasks
      : tasks.filter((task) => String(task.done) === done),
  );
});

app.post("/tasks", (request, response) => {
  const { title } = request.body ?? {};
  if (typeof title !== "string") {
    response.status(400).json({ error: "a task needs a title" });
    return;
  }
  const task = { id: tasks.length + 1, title, done: false };
  tasks.push(task);
  response.status(201).location(`/tasks/${task.id}`).json(task);
});

app.get("/export", (_request, response) => {
  response.type("text/csv");
  response.write("id,title\n");
  for (const { id, title } of tasks) response.write(`${id},${title}\n`);
  response.end();
});

const port = process.env.PORT ?? 3000;
app.listen(port, () => console.log(`Listening on port ${port}`));
